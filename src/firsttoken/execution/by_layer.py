"""One forward pass, seen layer by layer, whether the model is in memory or streamed from disk.

>>> norms = through_layers(lm, [ids], lambda number, layer, v, p: v.norm(dim=-1), execution="streamed")
>>> norms[0]   # one tensor for each batch: of what enters the first layer
>>> norms[30]  # of what the 30th layer puts out

A measure that needs only a forward pass and no more than one layer at a time is written once, as such a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from firsttoken.execution.choose import choose_for_one_process
from firsttoken.execution.streaming import StreamedModel
from firsttoken.files import cache_folder
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import Probe, probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.forward import run_decoder
from firsttoken.probe.interventions import Hook
from firsttoken.probe.residual_stream import watch
from firsttoken.progress import tracked

# (number of the batch, layer, v, probe) -> what to keep of it, (row, ...). `v` (row, token, width) is the residual
# stream after `layer` layers, from 0 (what enters the first) to all of them; `attention(p, layer)` is the attention of
# the layer that put it out.
See = Callable[[int, int, Tensor, Probe], Tensor | None]
# The number of a batch -> the change to its attention.
HookOf = Callable[[int], Hook]


def through_layers(
    lm: LanguageModel,
    batches: Sequence[Tensor],
    see: See,
    *,
    keys: Sequence[int] | range = (0,),
    entropy: bool = False,
    renyi2: bool = False,
    hook_of: HookOf | None = None,
    execution: str = "resident",
    task: str = "",
) -> dict[int, list[Tensor]]:
    """Run batches through a model and collect what `see` returns.

    Args:
        batches: each (row, token), without padding, all of one length; each runs at once.
        see: see `See`; it must keep no reference to its arguments.
        keys, entropy, renyi2: what the probe observes, see `probe.probe`.
        hook_of: gives each batch, by its number, a change to its attention; `task` must then name the change.
        execution: `resident`, `streamed` or `auto`, see `execution.choose`.
        task: what `see` computes, in words. A streamed pass with the same model, texts and task that was killed is
            taken up again after its last finished layer; without words it starts again.

    Returns:
        {layer: one tensor for each batch}, on the CPU; layers for which `see` returned None are left out

    Raises:
        FirstTokenError: out of memory, or tensor parallelism, which shows no residual stream of its own.
    """
    way = choose_for_one_process(lm, execution)
    remedy = "lower batch_tokens or length, or use dtype='bfloat16'"
    with torch.inference_mode(), explain_out_of_memory(remedy):
        if way == "streamed":
            return _streamed(lm, batches, see, keys, entropy, renyi2, hook_of, task)
        return _resident(lm, batches, see, keys, entropy, renyi2, hook_of)


def attention(p: Probe, layer: int, kind: str = "attention") -> Tensor | None:
    """What the probe saw in the layer that put out the residual stream `layer`: attention to each key, (row, head,
    query, key), or an entropy, (row, head, query). None where no attention did, as before the first layer and after
    some of a hybrid's; `check.layer_numbers` says which layers are left."""
    return p.per_layer(kind).get(layer - 1)  # type: ignore[arg-type]


def _resident(
    lm: LanguageModel,
    batches: Sequence[Tensor],
    see: See,
    keys: Sequence[int] | range,
    entropy: bool,
    renyi2: bool,
    hook_of: HookOf | None,
) -> dict[int, list[Tensor]]:
    by_layer: dict[int, list[Tensor]] = {}
    for number, batch in enumerate(tracked(batches)):
        hook = None if hook_of is None else hook_of(number)
        with probe(lm.model, keys=keys, entropy=entropy, renyi2=renyi2, hook=hook) as p:

            def note(layer: int, v: Tensor, number: int = number, p: Probe = p) -> None:
                if (seen := see(number, layer, v, p)) is not None:
                    by_layer.setdefault(layer, []).append(seen.cpu())

            with watch(lm.model, note):
                run_decoder(lm.model, batch)
    return by_layer


def _streamed(
    lm: LanguageModel,
    batches: Sequence[Tensor],
    see: See,
    keys: Sequence[int] | range,
    entropy: bool,
    renyi2: bool,
    hook_of: HookOf | None,
    task: str,
) -> dict[int, list[Tensor]]:
    streamed = StreamedModel(lm)
    ends = list(accumulate((len(batch) for batch in batches), initial=0))
    spans = [slice(start, end) for start, end in pairwise(ends)]
    seen_of: dict[int, int] = {}  # layer -> how many batches have been through it

    def change(module: Any, call: AttentionCall) -> AttentionCall:
        assert hook_of is not None
        return hook_of(seen_of.get(module.layer_idx, 0))(module, call)

    hook = None if hook_of is None else change
    with probe(streamed.model, keys=keys, entropy=entropy, renyi2=renyi2, hook=hook) as p:

        def observe(layer: int, v: Tensor) -> Tensor | None:
            number = seen_of.get(layer, 0)
            seen_of[layer] = number + 1
            return see(number, layer + 1, v, p)

        out = streamed.run(
            torch.cat(list(batches)),
            observe,
            spans=spans,
            observe_input=True,
            work=cache_folder() / "streaming" if task else None,
            task=f"{task}, batches of {[len(batch) for batch in batches]}",
        )
    return {layer + 1: list(out.observed[layer].split(out.rows)) for layer in sorted(out.observed)}
