"""Find, check and load any causal language model by one name; what its layers are called.

The names below come from modules that import torch and transformers; they are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firsttoken.models.language_model import DTYPES, BosPolicy, LanguageModel
    from firsttoken.models.loading import load, load_all
    from firsttoken.models.quiet import no_progress_bar

__all__ = ["DTYPES", "BosPolicy", "LanguageModel", "load", "load_all", "no_progress_bar"]

_HOME = {
    **dict.fromkeys(("DTYPES", "BosPolicy", "LanguageModel"), "language_model"),
    **dict.fromkeys(("load", "load_all"), "loading"),
    "no_progress_bar": "quiet",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
