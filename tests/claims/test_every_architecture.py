"""Every chapter on every kind of architecture: it measures finite numbers of the right layers, or says why not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from firsttoken import claims, models, statistics
from firsttoken.claims.compression import tasks as compression_tasks
from firsttoken.claims.kv_cache import measure as kv_cache
from firsttoken.claims.phenomenon import figures as phenomenon_figures
from firsttoken.claims.sink_rates import figures as sink_rates_figures
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.models import LanguageModel
from tiny import ARCHITECTURES, HYBRID, Tiny, sharp_model

VOCABULARY = 4096  # with more tokens, logits would take most of the time of models this small
RESAMPLES = 50  # of an interval; finite ends are all that is asked for here
SEVERAL_STREAMS: dict[str, Any] = dict(
    sliding_window=16, layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2,
    hidden_size_per_layer_input=4, vocab_size_per_layer_input=VOCABULARY, activation_sparsity_pattern=[0.0] * 4,
    laurel_rank=4,
)  # fmt: skip
LATENT = ARCHITECTURES["deepseek_v3-latent"]
WITHOUT_EXPERTS = replace(LATENT, extra=LATENT.extra | {"first_k_dense_replace": 4})
# One of each kind: what a chapter may stumble over.
KINDS: dict[str, Tiny] = {
    "layers without attention": HYBRID,
    "experts": ARCHITECTURES["mixtral"],
    "learned positions": ARCHITECTURES["gpt2"],
    "latent attention": WITHOUT_EXPERTS,
    "some layers slide": ARCHITECTURES["gemma3_text"],
    "all layers slide": ARCHITECTURES["mistral-sliding"],
    "sink logits": ARCHITECTURES["gpt_oss-sinks"],
    "rotation of a part": ARCHITECTURES["gpt_neox"],
    "attention beside the MLP": Tiny("cohere", {"logit_scale": 1.0}),
    "a head called decoder": Tiny("modernbert-decoder"),
    "several streams": Tiny("gemma3n_text", SEVERAL_STREAMS),
}
SMALL: dict[str, Any] = dict(
    passages=6, norm_passages=3, length=64, text_tokens=32, edits=6, edits_per_text=1, calibration_passages=3,
    candidates=2, tested=1, windows=2, window=32, needle_length=256, repeats=16, bounded=2, maps=1, longest=128,
    draws=2, stream=40, batch_tokens=1024, long_windows=2, long_length=64, task_draws=2,
    task_questions=8, noise_seeds=1, longest_text_tokens=128, gains=2, sources=1, directions=2,
)  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "no_op": {"passages": 8, "trigger": ","},
    "phenomenon": {"length": 24},
    "kv_cache": {"length": 96},
    "robustness": {"text_tokens": 64, "skip_passages": 0},
}


def each_of(kind: str, measurements: tuple[str, ...], said: str) -> dict[tuple[str, str, str], str]:
    """The same words from several measurements, each named by its claim and, if it has one, its variant."""
    return {(kind, *name.partition(" ")[::2]): said for name in measurements}


# What a chapter cannot measure on a kind, and says so.
REFUSED = {
    ("layers without attention", "kv_cache", "stream"): "keeps a state and no tokens",
    ("experts", "quantisation", ""): "choose a model without experts",
    ("sink logits", "quantisation", ""): "choose a model without experts",
    ("learned positions", "kv_cache", "stream"): "no rotary positions",
    ("latent attention", "kv_cache", "stream"): "planes of a known kind",
    ("some layers slide", "kv_cache", "stream"): "slide over 6 tokens of their own",
    ("all layers slide", "kv_cache", "stream"): "slide over 6 tokens of their own",
    ("all layers slide", "kv_cache", ""): "slides over 6 tokens of its own",
    ("sink logits", "kv_cache", "stream"): "or scales it",
    ("rotation of a part", "kv_cache", "stream"): "turns only a part of each head",
    ("a head called decoder", "kv_cache", "stream"): "slide over 64 tokens of their own",
    **each_of(
        "a head called decoder",
        ("compression", "no_op", "no_op kinds", "removal", "removal long", "robustness"),
        "no attention modules with an output projection",
    ),
    ("several streams", "kv_cache", "stream"): "slide over 16 tokens of their own",
    **each_of(
        "several streams",
        (
            "dose",
            "dose gains",
            "jacobian",
            "no_op",
            "perturbation",
            "phenomenon",
            "phenomenon passages",
            "quantisation",
            "removal",
            "removal long",
            "robustness",
            "sink_position",
            "smoothing",
            "smoothing length",
            "theory",
        ),
        "hands several streams from layer to layer",
    ),
}
CHAPTERS = [measurement for claim in claims.names() for measurement in claims.measurements(claim)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A small one of the kind that the bundled models have, trained on this book's own texts."""
    own = [path.read_text() for path in sorted((ROOT / "src/firsttoken/texts/data").rglob("*.txt"))]
    return models.load("smollm2-135m").tokenizer.train_new_from_iterator(own, VOCABULARY)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = statistics._draws
    monkeypatch.setattr(statistics, "RESAMPLES", RESAMPLES)
    monkeypatch.setattr(statistics, "_draws", lambda n, generator, resamples=0: draws(n, generator, RESAMPLES))


def model_of(kind: str, tokenizer: Any) -> LanguageModel:
    tiny = KINDS[kind]
    longer = {name: 4096 for name in ("max_position_embeddings", "n_positions") if name in tiny.base}
    config = AutoConfig.for_model(
        tiny.model_type, **(tiny.base | tiny.extra | longer | {"vocab_size": len(tokenizer)})
    )
    lm = LanguageModel(f"tiny-{tiny.model_type}", "folder", ".", None, "0" * 16, "none", "float32", "cpu")
    vars(lm).update(model=sharp_model(config), config=config, tokenizer=tokenizer)
    return lm


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("kind", KINDS)
def test_measures_or_refuses(
    kind: str, tokenizer: Any, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "MARK", 20)
    monkeypatch.setattr(compression_tasks, "SHARES", (0.2,))
    lm = model_of(kind, tokenizer)
    layers = set(range(4)) if kind != "layers without attention" else {1, 3}
    refused: dict[tuple[str, str, str], str] = {}
    for measurement in CHAPTERS:
        what = (kind, measurement.claim, measurement.variant)
        known = {field.name for field in fields(measurement.parameters)}
        chosen = {name: v for name, v in (SMALL | OWN.get(measurement.claim, {})).items() if name in known}
        parameters = measurement.parameters(**chosen)
        try:
            record = measurement.record(lm, parameters, fresh=True, store=tmp_path)
        except FirstTokenError as error:
            refused[what] = str(error)
            continue
        assert all(math.isfinite(number) for number in numbers(record.values)), what
        named = set(_layers(record.values))
        assert named <= layers, f"{what} names layers {named}"
        if measurement.judge is not None and not measurement.variant:
            assert measurement.judge(record) is not None
    expected = {what: sentence for what, sentence in REFUSED.items() if what[0] == kind}
    assert refused.keys() == expected.keys(), refused
    assert all(sentence in refused[what] for what, sentence in expected.items()), refused


def _layers(value: Any) -> Iterator[int]:
    """Every layer that a record names beside a head."""
    if isinstance(value, dict):
        if "layer" in value and "head" in value:
            yield value["layer"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _layers(part)


def test_figures_name_a_hybrids_layers_by_their_numbers(tokenizer: Any, tmp_path: Path, one_thread: None) -> None:
    lm = model_of("layers without attention", tokenizer)
    of = {m.claim: m for m in CHAPTERS if not m.variant}
    shown = of["phenomenon"].record(lm, of["phenomenon"].parameters(length=8), store=tmp_path)
    assert '"layers":[1,3]' in phenomenon_figures.head_map(shown).html
    assert shown.values["strongest"]["layer"] in (1, 3)
    counted = of["sink_rates"].record(lm, of["sink_rates"].parameters(passages=4, length=16), store=tmp_path)
    table = sink_rates_figures.layers_without([counted]).text
    assert "(layer 1)" in table or "(layer 3)" in table
    assert " 0, 2" not in table, "layers that have no attention are no layers without sinks"
