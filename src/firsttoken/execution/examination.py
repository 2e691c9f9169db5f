"""One model compared with itself under the probe, on random tokens: logits, interventions, attention, causality."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import attention_layers, rotation_length
from firsttoken.models.positions import positions_of
from firsttoken.probe import Probe, probe
from firsttoken.probe import interventions as change
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.implementation import attention_configs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 24
# Largest difference between two ways to compute the same, as a share of the largest logit, and of attention. A fault
# is ten times as large at least; rounding in half precision adds up over the layers.
TOLERANCE = {torch.float32: (1e-3, 1e-3), torch.float16: (0.05, 0.1), torch.bfloat16: (0.1, 0.2)}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check showed; goes into a record's provenance."""

    subject: Literal["model", "copy", "model and copy", "unchecked"]  # what was run
    tokens: int  # of the longest input that was run
    layers: tuple[int, ...] | None  # numbers of the attention layers, in the order of a result's rows
    logits: float | None  # largest difference with the probe from without it, of the largest logit
    interventions: float | None  # the same with every intervention in place, at zero strength
    attention: float | None  # largest difference from eager attention; None where a model has no usable eager
    causal: bool | None  # whether no token reads later ones
    same_rotation: int | None  # longest text whose tokens are turned as in any shorter one; None: however long

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"layers": None if self.layers is None else list(self.layers)}


def sees_attention(model: PreTrainedModel) -> bool:
    """Whether the probe sees attention in any layer of a model."""
    with torch.inference_mode(), probe(model) as p:
        _logits(model, _ids(model, 4, 1), type(model).__name__)
    return bool(p.layers)


def examine(model: PreTrainedModel, name: str, tokens: int = TOKENS, rows: int = 2, causality: bool = True) -> Checked:
    """Compare a model with itself under the probe, on random tokens, (rows, tokens).

    Args:
        tokens: or as many as the model has positions for.
        causality: whether to find out if tokens read later ones; takes two passes more.

    Raises:
        FirstTokenError: it cannot be probed, or differs; the sentence says by how much.
    """
    ids = _ids(model, tokens, rows)
    tokens = ids.shape[1]
    if tokens < 2:
        raise FirstTokenError(f"{name} reads {tokens} tokens at most, and a sink shows in texts of several.")
    allowed, allowed_attention = TOLERANCE.get(model.dtype, TOLERANCE[torch.float32])
    with torch.inference_mode():
        plain = _logits(model, ids, name)
        if not torch.isfinite(plain).all():
            raise FirstTokenError(f"{name} computes logits that are no numbers; load it in another dtype.")
        scale = float(plain.abs().max().clamp_min(1e-6))

        def differ(other: Tensor, expected: Tensor) -> float:
            return float((other - expected).abs().max()) / scale

        with probe(model, keys=range(tokens)) as p:
            logits = differ(_logits(model, ids, name), plain)
        if not logits <= allowed:  # also what is no number
            raise _refusal(name, f"logits change by {logits:.2g} of the largest one while the probe looks on")
        layers = _layers(model, p, name)
        with probe(model, hook=change.in_every_layer(_without_effect)):
            changed = differ(_logits(model, ids[:1], name), plain[:1])
        if not changed <= allowed:
            raise _refusal(name, f"interventions at zero strength change logits by {changed:.2g} of the largest one")
        attention = _against_eager(model, ids, p, name)
        if attention is not None and not attention <= allowed_attention:
            raise _refusal(name, f"attention differs from its eager attention by {attention:.2g}")
        causal = None
        if causality:
            # A token that no earlier one reads changes nothing there, and neither does its absence.
            other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
            half = tokens // 2
            later = differ(_logits(model, other, name)[:, :-1], plain[:, :-1])
            absent = differ(_logits(model, ids[:, :half], name), plain[:, :half])
            causal = later <= allowed and absent <= allowed
    return Checked(
        subject="model",
        tokens=tokens,
        layers=layers,
        logits=logits,
        interventions=changed,
        attention=attention,
        causal=causal,
        same_rotation=rotation_length(model.config),
    )


def _refusal(name: str, what: str) -> FirstTokenError:
    return FirstTokenError(
        f"The probe does not measure what {name} computes: {what}; choose another model, or report this one."
    )


def _ids(model: PreTrainedModel, tokens: int, rows: int) -> Tensor:
    """Random tokens, (row, token), as many as were asked for or as the model has positions for; none of them special
    as far as numbers can tell."""
    positions = positions_of(model)
    tokens = tokens if positions is None else min(tokens, positions)
    embedding: Any = model.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    low, high = 3, min(vocabulary - 4, 30_000)
    if high <= low:
        low, high = 0, vocabulary
    generator = torch.Generator().manual_seed(0)
    return torch.randint(low, high, (rows, tokens), generator=generator).to(model.device)


def _logits(model: PreTrainedModel, ids: Tensor, name: str) -> Tensor:
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    except FirstTokenError:
        raise
    except Exception as error:
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise FirstTokenError(f"{name} cannot be run on {ids.shape[1]} tokens of text: {message[0][:200]}.") from error
    return logits


def _layers(model: PreTrainedModel, p: Probe, name: str) -> tuple[int, ...]:
    seen = tuple(sorted(p.per_layer()))
    if not seen:
        _ = p.attention  # says what is the matter
    expected = attention_layers(model.config)
    if expected is not None and seen != tuple(expected):
        raise _refusal(
            name, f"its configuration has attention in layers {list(expected)}, and the probe sees {list(seen)}"
        )
    return seen


def _without_effect(call: AttentionCall) -> AttentionCall:
    """Every intervention of `probe.interventions`, so weak that nothing may change, in a text of one row."""
    call = replace(call, mask=change.explicit_mask(call), causal=False)
    call = change.forbid_key_in_heads(call, [])
    call = change.only_key(call, heads=[])
    call = change.weaken_key(call, 0.0)
    return change.set_first_value(call, call.value[0, :, 0])


def _against_eager(model: PreTrainedModel, ids: Tensor, p: Probe, name: str) -> float | None:
    """The largest difference between the probe's attention and eager attention's; None without usable maps."""
    with _eager(model):
        try:
            out = model(input_ids=ids, use_cache=False, output_attentions=True)
        except Exception:
            return None
    length = ids.shape[1]
    given = getattr(out, "attentions", None) or ()
    # Mixers that are no attention put something else there, or nothing.
    maps = [m for m in given if isinstance(m, Tensor) and m.shape[-2:] == (length, length) and m.dim() == 4]
    columns = p.per_layer()
    if not maps:
        return None
    if len(maps) != len(columns):
        raise _refusal(name, f"eager attention gives {len(maps)} maps, and the probe sees {len(columns)} layers")
    differences = []
    virtual = p.virtual_sink_per_layer()
    for layer, expected in zip(sorted(columns), maps, strict=True):
        seen, expected = columns[layer], expected.float()
        if seen.shape != expected.shape:
            raise _refusal(
                name, f"eager attention has maps of {tuple(expected.shape)}, the probe of {tuple(seen.shape)}"
            )
        if layer in virtual and float((expected.sum(-1) - 1).abs().max()) < 1e-2:
            # Some models give their maps before the virtual sink takes its share.
            seen = seen / (1 - virtual[layer])[..., None].clamp_min(1e-6)
        differences.append((seen - expected).abs().max().float())
    return float(torch.stack([difference.cpu() for difference in differences]).max())  # nan where one is


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    configs = attention_configs(model)
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
