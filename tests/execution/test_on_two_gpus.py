"""Measures on a model whose second half lies on another GPU, as `device_map="auto"` spreads it: numbers stay the same.

The GPUs are not there (`pretend_cuda`). What moves from layer to layer is moved by accelerate's own hooks; whatever a
measure keeps of several layers, it must bring together itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn

from firsttoken import models
from firsttoken.claims.dose import measure as dose
from firsttoken.claims.dose.runs import Bench, prepare, untouched
from firsttoken.measures import ablations, first_token_attention, head_norms, path_sums, sink_kinds
from firsttoken.measures.cache_masks import Policy, evicting
from firsttoken.measures.sink_window_cache import sink_window_cache
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.losses import predict
from firsttoken.probe.residual_stream import residual_stream
from pretend_cuda import pretend_cuda
from saved_models import MEASURES, QUERIES, ids, saved

pytestmark = [
    pytest.mark.usefixtures("one_thread", "own_cache"),
    pytest.mark.filterwarnings("ignore:No fused attention kernel"),
]


def spread(lm: LanguageModel) -> LanguageModel:
    """The same model, the second half of its layers and what follows on `cuda:1`."""
    model = models.load(lm.path, device="cpu").model
    layers, half = model.model.layers, len(model.model.layers) // 2
    # A parent does not move what it calls, except at both ends of the whole model.
    parts = [model.model.embed_tokens, model.model.rotary_emb, *layers, model.model.norm, model.lm_head]
    for number, part in enumerate(parts):
        _run_on(part.to(device := f"cuda:{int(number >= half + 2)}"), device, AlignDevicesHook())
    _run_on(model, "cuda:0", AlignDevicesHook(io_same_device=True))
    there = dataclasses.replace(lm, device="cuda", device_map="auto")
    vars(there).update(tokenizer=lm.tokenizer, model=model)
    return there


def _run_on(part: nn.Module, device: str, hook: AlignDevicesHook) -> None:
    add_hook_to_module(part, hook)
    hook.execution_device = device  # named later, so that it moves no weights: they are there


def entropies(lm: LanguageModel) -> list[Tensor]:
    with probe(lm.model, keys=[0, 4], entropy=True, renyi2=True) as p:
        predict(lm, ids(), QUERIES)
    return [p.attention_per_key, p.attention, p.entropy, p.renyi2]


def renumbered(lm: LanguageModel) -> list[Tensor]:
    with probe(lm.model, hook=evicting(lm.model, Policy(6, "sinks", 2, "cache"))):
        masks = predict(lm, ids(), QUERIES).loss
    cache, logits = sink_window_cache(lm.model, 6, 2), []
    with torch.inference_mode():
        for token in ids()[:1].to(lm.model.device).split(1, dim=1):
            logits.append(lm.model(token, past_key_values=cache, use_cache=True).logits.cpu())
    return [masks, torch.cat(logits, dim=1)]


def doses(lm: LanguageModel) -> list[Tensor]:
    bench = Bench(lm, prepare(lm, ids(), "with_bos", 2, seed=0), 51, "resident")
    ran = bench.run({"plain": untouched, "weaker": partial(dose.on_first, -2.0)})
    ran |= bench.run({"noise": dose.control("noise", 0.7)})
    return [tensor for one in ran.values() for part in (one.moved, one.seen) for tensor in vars(part).values()]


def arms(lm: LanguageModel) -> list[Tensor]:
    means = ablations.ordinary_means(lm, ids())
    ran = [ablations.run_arm(lm, ids(), QUERIES, arm, means) for arm in ("mask", "mean_value", "mean_residual")]
    return [tensor for one in ran for tensor in (one.predictions.loss, one.alpha)]


MEASURED: dict[str, Callable[[LanguageModel], list[Tensor]]] = {
    **{name: lambda lm, measure=measure: [measure(lm)] for name, measure in MEASURES.items()},  # type: ignore[misc]
    "alphas": lambda lm: [first_token_attention.alphas(lm, ids(), 34, "resident")],
    "entropies": entropies,
    "residual stream": lambda lm: [residual_stream(lm.model, ids())],
    "norms of heads": lambda lm: list(vars(head_norms.trace_heads(lm, ids())).values()),
    "kinds of sinks": lambda lm: list(vars(sink_kinds.observe(lm, ids()[:2])).values()),
    "path sums": lambda lm: [path_sums.walk(lm, ids()[:2], [0, 3])],
    "renumbered caches": renumbered,
    "doses": doses,
    "arms without the first token": arms,
}


@pytest.mark.parametrize("name", MEASURED)
def test_numbers_are_those_of_one_device(name: str, tmp_path: Path) -> None:
    lm = saved("llama", tmp_path / "model")
    expected = MEASURED[name](lm)
    with pretend_cuda():
        on_two = MEASURED[name](spread(lm))
    torch.testing.assert_close([tensor.cpu() for tensor in on_two], expected, atol=1e-4, rtol=1e-4)


def test_the_pretence_tells_the_gpus_apart(tmp_path: Path) -> None:
    with pretend_cuda():
        a, b = torch.ones(2, 3, device="cuda:0"), torch.ones(2, 3, device="cuda:1")
        assert (a + b.to("cuda:0")).device.index == 0
        assert (a.to(b) + b).device.index == 1
        for wrong in (lambda: a + b, lambda: torch.stack([a, b]), lambda: a[b[0].long()], lambda: b[a[0].long()]):
            with pytest.raises(RuntimeError, match=r"same device|should be on cpu"):
                wrong()
        model = spread(saved("llama", tmp_path / "model")).model
        assert {str(weight.device) for weight in model.parameters()} == {"cuda:0", "cuda:1"}
