"""The chapter's numbers on the bundled models, against eager attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from firsttoken import cli, models, records, texts
from firsttoken.claims import verify
from firsttoken.claims.phenomenon import measure as phenomenon
from firsttoken.claims.sink_rates import figures, verdict
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.errors import FirstTokenError
from firsttoken.measures import first_token_attention, first_token_summary
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED
from firsttoken.probe import probe
from firsttoken.records import filename
from firsttoken.records import store as record_store
from real_models import eager_maps

pytestmark = pytest.mark.usefixtures("own_store")

LENGTH = 64


@pytest.fixture(params=BUNDLED)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    return models.load(request.param)


def test_probe_equals_eager_on_a_real_model(lm: LanguageModel) -> None:
    # Longer than Gemma's window of 512, so that sliding layers really cut something off.
    long = texts.windows(lm, texts.long_text(), 640, 1)
    short = texts.encode(lm, [p.text for p in texts.passages()[:3]], LENGTH)
    # States instead of logits: all that the output layer reads, without a quarter of a million numbers a token.
    decoder = lm.model.get_decoder()
    for ids in (short, long):
        states, maps = eager_maps(lm, ids)
        with torch.inference_mode(), probe(lm.model, keys=[0, 1, 5], entropy=True) as p:
            out = decoder(ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(out, states, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(p.attention_per_key, maps[..., [0, 1, 5]].transpose(0, 1), atol=1e-4, rtol=0)
        torch.testing.assert_close(p.entropy, torch.special.entr(maps).sum(-1).transpose(0, 1), atol=1e-3, rtol=0)
        lm.model.set_attn_implementation("sdpa")
        with torch.inference_mode():
            plain = decoder(ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(out, plain, atol=1e-4, rtol=0)


def test_sink_rate_equals_a_count_over_eager_maps(lm: LanguageModel) -> None:
    parameters = first_token_summary.Parameters(passages=4, length=LENGTH, epsilon=0.3)
    record = sink_rates.MEASUREMENT.record(lm, parameters)
    ids = texts.encode(lm, [p.text for p in texts.passages()[:4]], LENGTH)
    alpha = eager_maps(lm, ids)[1][..., 0].mean(-1)  # (text, layer, head)
    assert record.values["sink_rate"]["value"] == pytest.approx((alpha > 0.3).double().mean().item(), abs=1e-9)
    assert record.values["mass"]["value"] == pytest.approx(alpha.mean().item(), abs=1e-5)
    assert record.values["sink_rate"]["n"] == 4
    assert torch.tensor(record.values["alpha"]).sub(alpha.mean(0)).abs().max() < 1e-4


def test_short_lengths_from_one_long_pass(lm: LanguageModel) -> None:
    ids = texts.windows(lm, texts.long_text(), 128, 2)
    together = first_token_attention.alphas_of_prefixes(lm, ids, [16, 64, 128])
    for length, alpha in together.items():
        torch.testing.assert_close(alpha, first_token_attention.alphas(lm, ids[:, :length]), atol=1e-5, rtol=0)


def test_batching_changes_nothing(lm: LanguageModel) -> None:
    ids = texts.encode(lm, [p.text for p in texts.passages()[:5]], 32)
    one, all_ = (
        first_token_attention.alphas(lm, ids, batch_tokens=32),
        first_token_attention.alphas(lm, ids, batch_tokens=4096),
    )
    torch.testing.assert_close(one, all_, atol=1e-5, rtol=0)


def test_a_text_too_short_for_the_longest_windows_is_told_before_anything_runs(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For windows of 256 tokens it is long enough."""

    def never(*_: object) -> dict[int, torch.Tensor]:
        raise AssertionError("the model was run")

    monkeypatch.setattr(sink_rates, "alphas_of_prefixes", never)
    document = texts.long_text()[:8000]
    with pytest.raises(FirstTokenError, match="fewer than 2 windows of 2048"):
        sink_rates.run_by_length(lm, sink_rates.ByLength(longest=2048, sweep_tokens=512), [document])
    with pytest.raises(AssertionError, match="was run"):
        sink_rates.run_by_length(lm, sink_rates.ByLength(longest=256, sweep_tokens=512), [document])


def record(model: str, loose: float, strict: float, length: int = LENGTH) -> records.Record:
    return records.Record("sink_rates", model, {"length": length}, values(loose, strict), {})


def values(loose: float, strict: float) -> dict[str, object]:
    def estimates(at: float) -> dict[str, float]:
        return {"value": at, "low": at - 0.01, "high": at + 0.01, "n": 170}

    rates = [loose if epsilon < 0.5 else strict for epsilon in first_token_summary.EPSILONS]
    by_epsilon = {
        "epsilon": list(first_token_summary.EPSILONS),
        "threshold_first": [estimates(rate) for rate in rates],
    }
    return {"by_epsilon": by_epsilon}


@pytest.mark.parametrize(
    ("model", "loose", "strict", "status"),
    [
        ("meta-llama-llama-3-1-8b", 0.9, 0.47, "reproduced"),
        ("meta-llama-llama-3-1-8b", 0.9, 0.57, "partly"),
        ("meta-llama-llama-3-1-8b", 0.9, 0.10, "not reproduced"),
        ("some-other-model", 0.7, 0.10, "inconclusive"),
        ("some-other-model", 0.7, 0.99, "inconclusive"),
        ("some-other-model", 0.1, 0.05, "inconclusive"),
    ],
)
def test_verdicts_follow_from_the_numbers(model: str, loose: float, strict: float, status: str) -> None:
    judged = verdict.judge(record(model, loose, strict))
    assert judged.status == status
    assert f"{strict:.1%}" in judged.sentence


def test_another_length_cannot_test_the_papers_table() -> None:
    assert verdict.judge(record("meta-llama-llama-3-1-8b", 0.9, 0.46, length=128)).status == "inconclusive"


def test_layers_that_never_sink_are_named() -> None:
    def of(model: str, rates: list[float]) -> records.Record:
        return records.Record("sink_rates", model, {}, {"by_layer": {"sink_rate_0.3": rates}}, {})

    text = figures.layers_without([of("early", [0.0, 0.009, 0.5, 0.01]), of("all", [0.4, 0.2])]).text
    early, every = text.splitlines()[-2:]
    assert early == "early | 4 | 0, 1 | 0.0% | 0.9% | 0.0% (layer 0)"
    assert every == "all | 2 | none | 40.0% | 20.0% | 20.0% (layer 1)"


def test_the_papers_models_stay_in_the_table_without_a_record() -> None:
    rows = figures.paper_table([]).text.splitlines()[-3:]
    for row, model in zip(rows, ("8B", "70B", "405B"), strict=True):
        assert f"LLaMa 3.1 {model}" in row
        assert "not run" in row


def test_bad_parameters() -> None:
    lm = models.load("smollm2-135m")
    with pytest.raises(FirstTokenError, match="between 0 and 1"):
        first_token_summary.Parameters(epsilon=1.0)
    with pytest.raises(FirstTokenError, match="fewer than passages=100000"):
        sink_rates.MEASUREMENT.record(lm, first_token_summary.Parameters(passages=100000))
    with pytest.raises(FirstTokenError, match="fewer than the 9000"):
        sink_rates.MEASUREMENT.record(lm, first_token_summary.Parameters(passages=3, length=9000))


@pytest.mark.parametrize(
    ("options", "names"),
    [([], {"", "passages"}), (["--no-variants"], {""}), (["--without", "passages"], {""})],
)
def test_verify_can_leave_the_variants_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, options: list[str], names: set[str]
) -> None:
    """Reference: the committed files, by their names."""
    monkeypatch.setattr(verify.models, "load", lambda *_, **__: None)
    # Every record repeats itself.
    monkeypatch.setattr(verify.Measurement, "again", lambda self, lm, record, store: record)
    assert cli.main(["verify", "phenomenon", *options]) == 0
    said = sorted(line.split(": ") for line in capsys.readouterr().out.splitlines())
    files = [filename(model, name) for model in BUNDLED for name in names]
    assert said == [[f"phenomenon/{file}", "holds"] for file in sorted(files)]
    assert cli.main(["verify", "phenomenon", *options, "--without", "long"]) == 2
    assert "has a variant long; their variants are: " in capsys.readouterr().err


def test_verify_finds_a_changed_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lm = models.load("gemma3-270m")
    reference = tmp_path / "reference"
    monkeypatch.setattr(record_store, "reference_store", lambda: reference)
    parameters = phenomenon.Parameters(text=texts.passages()[0].text, length=20)
    good = phenomenon.MEASUREMENT.record(lm, parameters)
    records.write(good, reference)
    ((_, lines),) = verify.verify(["phenomenon"])
    assert lines == []
    good.values["alpha"][3][1] += 0.1
    records.write(good, reference)
    ((record, lines),) = verify.verify(["phenomenon"])
    assert record.model == "gemma3-270m"
    assert len(lines) == 1
    assert lines[0].startswith(".alpha[3][1]")
    with pytest.raises(FirstTokenError, match="no committed record of nothing"):
        list(verify.verify(["nothing"]))
