"""Find, check and load any causal language model by one name; what its layers are called.

The names below come from `loading`, which imports torch and transformers; they are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firsttoken.models.loading import DTYPES, BosPolicy, LanguageModel, load, load_all, no_progress_bar

__all__ = ["DTYPES", "BosPolicy", "LanguageModel", "load", "load_all", "no_progress_bar"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("firsttoken.models.loading"), name)
