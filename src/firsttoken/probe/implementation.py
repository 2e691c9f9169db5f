"""Putting an attention function into a model, under a name that the model's code takes for one it knows.

Some models ask for the name of their attention implementation, for instance to build the mask of the tokens that an
indexer selected: `if config._attn_implementation in ("eager", "sdpa")`. A name of our own would silently turn that
off. So the name equals the known one wherever it is compared, and is itself where transformers looks a function up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_numbers = itertools.count()


class _Name(str):
    """A string that compares as `known` and hashes as itself."""

    known: str

    def __new__(cls, known: str) -> _Name:
        name = super().__new__(cls, f"firsttoken_probe_{next(_numbers)}")
        name.known = known
        return name

    def __eq__(self, other: object) -> bool:
        return self is other or other == self.known

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return super().__hash__()

    def __deepcopy__(self, memo: Any) -> _Name:
        return self


def known_name(model: PreTrainedModel) -> str:
    """The implementation whose place the probe takes: `sdpa` where the model has it, else `eager`."""
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


@contextmanager
def attention_function(model: PreTrainedModel, function: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, all attention of `model` that goes through transformers' interface is `function`'s."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    configs = attention_configs(model)
    before = [(config, config._attn_implementation_internal) for config in configs]
    name = _Name(known_name(model))
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
        AttentionInterface._global_mapping.pop(name, None)
        AttentionMaskInterface._global_mapping.pop(name, None)


def attention_configs(model: nn.Module) -> list[Any]:
    """Every configuration that a module of the model may ask for its attention implementation, each once."""
    waiting: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    seen: dict[int, Any] = {}
    while waiting:
        config = waiting.pop()
        if id(config) in seen or not hasattr(config, "_attn_implementation_internal"):
            continue
        seen[id(config)] = config
        waiting += [getattr(config, key, None) for key in getattr(config, "sub_configs", {})]
    return list(seen.values())
