"""Is what the probe measures what the model computes? Asked once for each model, before it is measured.

>>> checked(lm).layers  # the numbers of the layers that the rows of every result belong to

A model in memory is run on a few tokens, and a small random copy of it (`models.small_copy`) on more tokens than its
narrowed windows and selections hold; a streamed or sharded model is not read for this, only its copy is run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from firsttoken.errors import FirstTokenError
from firsttoken.execution.choose import choose
from firsttoken.execution.examination import TOKENS, Checked, examine, sees_attention
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import attention_layers, config_value, longest_window, rotation_length
from firsttoken.models.finite_weights import refuse_weights_without_number
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.models.small_copy import small_copy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FEW_TOKENS = 8  # of a model whose copy was run on more
MOST_TOKENS = 2080  # where no copy can be made: beyond the windows of nearly all models
_checked: WeakKeyDictionary[LanguageModel, Checked | str] = WeakKeyDictionary()


def checked(lm: LanguageModel, execution: str = "auto") -> Checked:
    """The check of a causal model, made at the first call for this model and kept.

    Raises:
        FirstTokenError: the probe does not measure what the model computes, or tokens read later ones.
    """
    checks = check(lm, execution)
    if checks.causal is False:
        raise FirstTokenError(
            f"{lm.name} lets tokens read later ones (an encoder, or a bidirectional text model), so it predicts "
            "nothing and has no sink in the sense of this book; choose a causal language model."
        )
    return checks


def check(lm: LanguageModel, execution: str = "auto") -> Checked:
    """The same, also for a model whose tokens read later ones."""
    if lm not in _checked:
        try:
            _checked[lm] = _check(lm, resident=choose(lm, execution) == "resident")
        except FirstTokenError as error:
            _checked[lm] = str(error)
            raise
    kept = _checked[lm]
    if isinstance(kept, str):
        raise FirstTokenError(kept)
    return kept


def layer_numbers(lm: LanguageModel, rows: int, execution: str = "auto") -> list[int]:
    """The numbers of the layers that the `rows` of a result belong to: a hybrid's layers that have attention."""
    layers = check(lm, execution).layers
    return list(layers) if layers is not None and len(layers) == rows else list(range(rows))


def answers_for_prefixes(lm: LanguageModel, length: int, execution: str = "auto") -> bool:
    """Whether the first rows of a text of `length` tokens are the rows of the same text cut short."""
    checks = check(lm, execution)
    return checks.causal is not False and (checks.same_rotation is None or length <= checks.same_rotation)


def _check(lm: LanguageModel, resident: bool) -> Checked:
    small = small_copy(lm.config, lm.trust_remote_code)
    if small is not None and not sees_attention(small):
        small = None  # the layers left in the copy are of another kind
    of_copy = None if small is None else examine(small, lm.name)
    if not resident:
        return _of_configuration(lm, small, of_copy)
    window = longest_window(lm.config)
    beyond = small is None and window is not None and window >= TOKENS
    tokens = FEW_TOKENS if small is not None else TOKENS
    if beyond and window is not None:
        tokens = min(window + 8, MOST_TOKENS)
    with explain_out_of_memory("use dtype='bfloat16'"):
        refuse_weights_without_number(lm.name, lm.model.named_parameters())
        # Whether tokens read later ones is a question about code, which the copy has answered.
        of_model = examine(lm.model, lm.name, tokens, rows=1, causality=of_copy is None)
    if of_copy is None:
        return of_model
    attention = (of_copy.attention, of_model.attention)
    return replace(
        of_model,
        subject="model and copy",
        tokens=of_copy.tokens,
        logits=max(of_copy.logits or 0.0, of_model.logits or 0.0),
        interventions=max(of_copy.interventions or 0.0, of_model.interventions or 0.0),
        attention=None if None in attention else max(value or 0.0 for value in attention),
        causal=of_copy.causal,
    )


def _of_configuration(lm: LanguageModel, small: PreTrainedModel | None, of_copy: Checked | None) -> Checked:
    """The check of a model whose weights are not read for it."""
    layers = attention_layers(lm.config)
    if of_copy is None:
        nothing = Checked(
            subject="unchecked",
            tokens=0,
            layers=None if layers is None else tuple(layers),
            logits=None,
            interventions=None,
            attention=None,
            causal=None,
            same_rotation=rotation_length(lm.config),
        )
        return nothing
    count = config_value(lm.config, "num_hidden_layers")
    if layers is None and small is not None and of_copy.layers is not None:
        every = tuple(range(config_value(small.config, "num_hidden_layers") or 0))
        layers = list(range(count)) if of_copy.layers == every else None
    return replace(of_copy, subject="copy", layers=None if layers is None else tuple(layers))
