"""The attention probe: exact attention statistics of a running model, without the T x T matrix.

>>> with probe(model, keys=[0]) as p:
...     model(ids)
>>> p.attention  # (layer, batch, head, query): attention of every query to token 0

The model runs as it always does; a function registered with transformers' `AttentionInterface` computes the ordinary
attention output with a fused kernel and keeps the kernel's log-sum-exp, from which `row_statistics` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.probe.arguments import as_call, strange_arguments
from firsttoken.probe.attention import AttentionCall, attend
from firsttoken.probe.implementation import attention_function
from firsttoken.probe.passes import Held, Passes
from firsttoken.probe.row_statistics import columns, entropy, renyi2

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Probe:
    """What one forward pass showed. Filled while the model runs; a new pass replaces the old numbers.

    Rows that belong to padding tokens hold numbers without meaning; `measures.sinks` leaves them out of its means.
    """

    keys: Tensor  # (key,) or (batch, key): the positions asked for
    with_entropy: bool
    with_renyi2: bool
    hook: Callable[[Any, AttentionCall], AttentionCall] | None
    model_class: str
    _columns: dict[int, Tensor] = field(default_factory=dict)
    _entropy: dict[int, Tensor] = field(default_factory=dict)
    _renyi2: dict[int, Tensor] = field(default_factory=dict)
    _virtual: dict[int, Tensor] = field(default_factory=dict)
    _unreadable: dict[int, str] = field(default_factory=dict)  # layer -> why its numbers would be wrong
    _passes: Passes = field(default_factory=Passes)
    _pass: int = -1  # the one that the numbers are from
    _eager: bool = False  # whether the model computes attention by plain operations without the probe
    _seen_now: set[int] = field(default_factory=set)  # layers of this pass

    @property
    def layers(self) -> list[int]:
        """The numbers of the layers seen: all of them, or the attention layers of a hybrid model."""
        return sorted(self._columns)

    @property
    def attention(self) -> Tensor:
        """Attention of each query to all `keys` together, (layer, batch, head, query), float32."""
        return self.attention_per_key.sum(-1)

    @property
    def attention_per_key(self) -> Tensor:
        """Attention of each query to each of `keys`, (layer, batch, head, query, key), float32, on the device of the
        first layer, as all that is stacked."""
        return self._stack(self._columns)

    @property
    def entropy(self) -> Tensor:
        """Shannon entropy of each attention row in nats, (layer, batch, head, query). A virtual sink counts."""
        return self._stack(self._entropy, None if self.with_entropy else "entropy=True")

    @property
    def renyi2(self) -> Tensor:
        """Renyi entropy of order 2, -log sum_s A[j, s]^2, in nats, (layer, batch, head, query)."""
        return self._stack(self._renyi2, None if self.with_renyi2 else "renyi2=True")

    @property
    def virtual_sink(self) -> Tensor | None:
        """Attention to a learned sink logit, a column that is no token (gpt-oss), (layer, batch, head, query);
        None for a model without one. Rows of `attention` then add up to less than one."""
        return self._stack(self._virtual) if self._virtual else None

    def virtual_sink_per_layer(self) -> dict[int, Tensor]:
        """Layer number -> attention to its learned sink logit, (batch, head, query), for layers that have one."""
        return dict(self._virtual)

    def _stack(self, by_layer: dict[int, Tensor], missing: str | None = None) -> Tensor:
        if missing:
            raise FirstTokenError(f"The probe was not asked for this: call probe(model, {missing}).")
        self._check_readable()
        if not by_layer:
            raise FirstTokenError(
                f"The probe saw no attention in {self.model_class}: run the model inside the `with` block; if you "
                "did, this model has no attention layers or computes attention outside transformers' interface."
            )
        tensors = [by_layer[layer] for layer in sorted(by_layer)]
        for what, axis in (("heads", 1), ("queries", 2)):
            if len(sizes := [t.shape[axis] for t in tensors]) != sizes.count(sizes[0]):
                raise FirstTokenError(
                    f"The layers of {self.model_class} differ in {what} ({sizes}), so they cannot be stacked; read "
                    "them one by one from `per_layer`."
                )
        # The layers of a model may lie on several devices.
        return torch.stack([tensor.to(tensors[0].device) for tensor in tensors])

    def per_layer(self, kind: Literal["attention", "entropy", "renyi2"] = "attention") -> dict[int, Tensor]:
        """Layer number -> attention to each key, (batch, head, query, key), or an entropy, (batch, head, query).

        Works where layers differ in heads, and while a model runs: what is there is what the layers so far showed.

        Raises:
            FirstTokenError: a layer's numbers mean nothing, see `probe`.
        """
        self._check_readable()
        return dict({"attention": self._columns, "entropy": self._entropy, "renyi2": self._renyi2}[kind])

    # -- called by the model --------------------------------------------------------------------------------

    def _see(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        if dropout:
            raise FirstTokenError("The probe measures a model without dropout: call model.eval() first.")
        if strange := [name for name in strange_arguments(module.__class__) if kwargs.get(name) is not None]:
            raise FirstTokenError(
                f"{self.model_class} gives its attention {', '.join(strange)}, which the probe does not know, so what "
                "it would measure is not the model's attention; choose another model."
            )
        layer = getattr(module, "layer_idx", None)
        self._passes.outside()
        held = self._held(module, layer)
        call = as_call(module, query, key, value, attention_mask, scaling, is_causal, kwargs, held)
        if self.hook is not None:
            call = self.hook(module, call)
        output, lse = attend(call, plain=self._eager and torch.is_grad_enabled())
        if layer is not None and not getattr(module, "is_cross_attention", False):
            with torch.no_grad():
                self._note(layer, call, lse.detach(), key.shape[2], held)
        return output.transpose(1, 2).contiguous(), None

    def _held(self, module: Any, layer: int | None) -> Held | None:
        # A layer that reuses the keys of an earlier one has no cache of its own.
        source = getattr(module, "kv_shared_layer_index", None)
        return self._passes.held.get(layer if source is None else source) if layer is not None else None

    def _note(self, layer: int, call: AttentionCall, lse: Tensor, keys: int, held: Held | None) -> None:
        stores = (self._columns, self._entropy, self._renyi2, self._virtual)
        if self._passes.number != self._pass:
            self._pass = self._passes.number
            self._seen_now.clear()
            if self._passes.whole:
                for store in (*stores, self._unreadable):
                    store.clear()
        other_keys = held is None and self._passes.tokens not in (None, keys)
        if layer in self._seen_now:
            # Two calls with one map, as differential attention makes them for two halves of the values, are one.
            before, same = self._columns.get(layer), False
            if before is not None and not other_keys:
                self._measure(layer, call, lse)
                same = before.shape == self._columns[layer].shape and torch.equal(before, self._columns[layer])
            if not same:
                self._unreadable[layer] = (
                    "attends more than once in a pass (a shared block, a loop, or cross-attention)"
                )
            return
        self._seen_now.add(layer)
        self._unreadable.pop(layer, None)
        if other_keys:
            # Other keys than the text's tokens, such as patches of bytes, which may be fewer than were asked for.
            self._unreadable[layer] = f"attends to {keys} keys in a text of {self._passes.tokens} tokens"
            return
        self._measure(layer, call, lse)

    def _check_readable(self) -> None:
        for layer, why in sorted(self._unreadable.items()):
            raise FirstTokenError(
                f"Layer {layer} of {self.model_class} {why}, so there is no one number for its attention to a token; "
                "choose another model."
            )

    def _measure(self, layer: int, call: AttentionCall, lse: Tensor) -> None:
        keys = self.keys.to(call.key.device)
        self._columns[layer] = columns(call, lse, keys)
        if call.sink_logits is not None:
            self._virtual[layer] = torch.exp(call.sink_logits.float()[..., 0] - lse)
        if self.with_entropy:
            self._entropy[layer] = entropy(call)
        if self.with_renyi2:
            self._renyi2[layer] = renyi2(call)


@contextmanager
def probe(
    model: PreTrainedModel,
    keys: Sequence[int] | Tensor = (0,),
    *,
    entropy: bool = False,
    renyi2: bool = False,
    hook: Callable[[Any, AttentionCall], AttentionCall] | None = None,
) -> Iterator[Probe]:
    """Measure attention in every forward pass of `model` inside the block; its outputs stay what they are.

    Args:
        model: a transformers causal LM (or its decoder) whose attention goes through `AttentionInterface`.
        keys: key positions, counted in the tokens of the text, also where a cache has dropped some of them (which
            then get no attention); (batch, key) where rows differ, for example
            `mask.long().argmax(1, keepdim=True)` for the first real token of left-padded rows.
        entropy, renyi2: also compute these; each costs one more attention call per layer, in float32.
        hook: called with the attention module and its `AttentionCall` before attention is computed; returns the
            call to compute instead. For interventions, such as forbidding a key.

    Raises:
        FirstTokenError: the architecture does not use the interface (GPT-J, Falcon, Bloom, MPT ...). Reading the
            numbers raises it where they would mean nothing: a layer attends more than once in a pass, or its keys
            are not the text's tokens.
    """
    kind = type(model).__name__
    if not model._can_set_attn_implementation():
        raise FirstTokenError(
            f"{kind} computes attention with code of its own, outside transformers' attention interface, so the "
            "probe cannot see it; choose a model that uses it, such as Llama, Qwen, Gemma, GPT-2, OPT or Pythia."
        )
    new_probe = Probe(_as_positions(keys), entropy, renyi2, hook, kind)
    new_probe._eager = model.config._attn_implementation == "eager"
    with new_probe._passes.watch(model), attention_function(model, new_probe._see):
        yield new_probe


def _as_positions(keys: Any) -> Tensor:
    try:
        positions = torch.as_tensor(keys)
        whole = not positions.numel() or not (positions.is_floating_point() or positions.dtype == torch.bool)
    except (TypeError, ValueError, RuntimeError):
        positions, whole = torch.empty(0), False
    if not whole or positions.dim() not in (1, 2):
        raise FirstTokenError(
            f"Keys are whole numbers, [0, 3] for instance, or a row of them for each text; not {keys!r}."
        )
    return positions.long()
