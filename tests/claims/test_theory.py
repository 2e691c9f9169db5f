"""The statements of the theory: as properties of random matrices, on toys with exact Jacobians, on tiny models."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fake import LETTERS, fake_lm
from firsttoken import records
from firsttoken.claims.theory import collapse, figures, verdict
from firsttoken.claims.theory import measure as theory
from firsttoken.claims.theory.bounds import weight_norms
from firsttoken.claims.theory.linear_model import SWEEPS, LinearModel, random_model, sweep
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures import spectra
from firsttoken.measures.bos_arms import ARMS
from firsttoken.measures.path_sums import log_path_sums, mean_map, walk
from firsttoken.model_names import short_name
from firsttoken.probe.residual_stream import residual_stream
from tiny import tiny_model

IDS = torch.randint(3, 97, (3, 20), generator=torch.Generator().manual_seed(5))

# -- collapse -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(n=st.integers(2, 9), width=st.integers(1, 6), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_rank_collapse_implies_representational_collapse(n: int, width: int, seed: int, scale: float) -> None:
    v = torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    limit = collapse.SQRT2 * collapse.distance_from_mean(v)
    assert collapse.last_two_distance(v) <= limit * (1 + 1e-12)


@pytest.mark.parametrize("n", [2, 5, 50])
def test_the_constant_cannot_be_smaller(n: int) -> None:
    v = torch.full((n, 3), 7.0, dtype=torch.float64)
    v[-1, 0], v[-2, 0] = 8.0, 6.0
    ratio = collapse.last_two_distance(v) / collapse.distance_from_mean(v)
    assert float(ratio) == pytest.approx(math.sqrt(2))


def test_measures_of_matrices_with_known_answers() -> None:
    even = torch.eye(8) * 3
    assert float(collapse.rank(even)) == pytest.approx(8)
    assert float(spectra.matrix_entropy(even)) == pytest.approx(1)
    assert float(collapse.first_norm_ratio(even)) == pytest.approx(1)
    same = torch.ones(8, 5)
    assert float(collapse.distance_from_mean(same)) == pytest.approx(0, abs=1e-6)
    assert float(collapse.rank(same)) == pytest.approx(1, abs=1e-4)
    assert float(spectra.matrix_entropy(same)) == pytest.approx(0, abs=1e-6)
    long = torch.eye(8)
    long[0] *= 1000
    assert float(collapse.first_norm_ratio(long)) == pytest.approx(1000)
    assert float(spectra.matrix_entropy(long)) < 1e-3, "one long token is all that the measure sees"


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 5, 3)])
def test_spectra_equal_torch(shape: tuple[int, ...]) -> None:
    v = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(spectra.singular_values_by_gram(v), torch.linalg.svdvals(v), atol=1e-7, rtol=1e-6)
    gram = v @ v.mT
    eigenvalues = torch.linalg.eigvalsh(gram / gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]).clamp_min(0)
    expected = torch.special.entr(eigenvalues).sum(-1) / math.log(min(shape[-2:]))
    torch.testing.assert_close(spectra.matrix_entropy(v), expected, atol=1e-6, rtol=0)


def test_collapse_by_layer_against_a_loop() -> None:
    lm = fake_lm(tiny_model("llama"))
    by_layer = collapse.by_layer(lm, IDS, "with_bos")
    rows = torch.cat([torch.ones(3, 1, dtype=torch.long), IDS], dim=1)
    states = residual_stream(lm.model, rows)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = lm.model.model(rows, output_attentions=True).attentions
    for layer in range(5):
        shares, norms = [], []
        for v in states[layer]:
            shares.append(float((v - v.mean(0)).norm() / v.norm()))
            norms.append(float(v[0].norm() / v[1:].norm(dim=-1).mean()))
        assert by_layer["from_mean"][layer]["value"] == pytest.approx(sum(shares) / 3, rel=1e-4)
        assert by_layer["first_norm"][layer]["value"] == pytest.approx(sum(norms) / 3, rel=1e-4)
        if layer:
            mass = float(maps[layer - 1][..., 0].mean())
            assert by_layer["mass"][layer - 1]["value"] == pytest.approx(mass, abs=1e-5)
    assert by_layer["broken"] == 0


def test_inputs_of_one_token_only_have_equal_states_with_rotary_positions() -> None:
    """Why the experiment on the last two tokens begins with a few others."""
    same = torch.full((1, 12), 9)
    for name, equal in (("llama", True), ("gpt2", False)):
        last = residual_stream(tiny_model(name), same)[-1, 0]
        assert torch.allclose(last, last[:1].expand_as(last), atol=1e-4) == equal


def test_last_two_against_separate_runs() -> None:
    lm = fake_lm(tiny_model("llama"))
    last_two = collapse.last_two(lm, IDS, repeats=16)
    assert last_two["repeats"] == [2, 4, 8, 16]
    tokens = [lm.tokenizer(word, add_special_tokens=False).input_ids[0] for word in collapse.REPEATED[:3]]
    for place, n in enumerate(last_two["repeats"]):
        shares = []
        for row, token in zip(IDS, tokens, strict=True):
            v = residual_stream(lm.model, torch.cat([row[: collapse.PREFIX], torch.full((n,), token)])[None])[-1, 0]
            shares.append(float((v[-1] - v[-2]).norm() / v[-1].norm()))
        assert last_two["without_bos"][place]["value"] == pytest.approx(sum(shares) / 3, rel=1e-3)


# -- path sums ----------------------------------------------------------------------------------------------


def test_path_sum_equals_a_walk_over_all_paths() -> None:
    maps = torch.rand(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tril()
    steps = [mean_map(of_layer) for of_layer in maps]
    logs = log_path_sums(steps)[-1]
    for j, i in itertools.product(range(4), range(4)):
        total = sum(
            float(steps[2][j, b] * steps[1][b, a] * steps[0][a, i]) for a, b in itertools.product(range(4), range(4))
        )
        assert float(logs[j, i].exp()) == pytest.approx(total, rel=1e-9)


def test_path_sum_survives_many_layers() -> None:
    steps = [torch.full((2, 2), 30.0).tril()] * 400
    assert float(log_path_sums(steps)[-1][0, 0]) == pytest.approx(400 * math.log(30))


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3"])
def test_walk_equals_products_of_eager_maps(name: str) -> None:
    lm = fake_lm(tiny_model(name))
    walked = walk(lm, IDS, [1, 6])
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = torch.stack(lm.model.model(IDS, output_attentions=True).attentions)  # (layer, text, head, query, key)
    for text in range(len(IDS)):
        sums = log_path_sums([mean_map(of_layer[text]) for of_layer in maps])
        for layer, log in enumerate(sums, 1):
            share = (log - layer * math.log(4 + 1 / 4)).exp()[:, [1, 6]].float()
            torch.testing.assert_close(walked[layer - 1, text], share, atol=1e-5, rtol=1e-4)


# -- the linear model ------------------------------------------------------------------------------------------


def test_toy_jacobian_equals_autograd() -> None:
    model = random_model(depth=3, heads=2, length=5, width=4, sink=0.3, seed=1)

    def run(v: torch.Tensor) -> torch.Tensor:
        for maps, weights in zip(model.maps, model.weights, strict=True):
            v = v + torch.einsum("hij,hab,jb->ia", maps, weights, v)
        return v

    v = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = torch.autograd.functional.jacobian(run, v).transpose(1, 2)  # (token j, token i, width, width)
    torch.testing.assert_close(model.jacobian_norms(), torch.linalg.matrix_norm(exact, ord=2), atol=1e-9, rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    depth=st.integers(1, 5), heads=st.integers(1, 4), length=st.integers(2, 7), width=st.integers(1, 5),
    sink=st.floats(0, 0.99), scale=st.floats(0.01, 10), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_bounds_of_the_toy_are_never_violated(
    depth: int, heads: int, length: int, width: int, sink: float, scale: float, seed: int
) -> None:
    model = random_model(depth, heads, length, width, sink, seed)
    model = LinearModel(model.maps, model.weights * scale)
    past = torch.ones(length, length, dtype=torch.bool).tril()
    exact = model.jacobian_norms()[past].log()
    tight, theorem = (log[past] for log in model.log_bounds())
    assert (exact <= tight + 1e-9).all()
    assert (tight <= theorem + 1e-9).all()


def test_a_smaller_constant_would_be_violated() -> None:
    """The constant must be at least H: the theorem's abar gives a token's own past the share 1/H only."""
    model = random_model(depth=4, heads=4, length=6)
    model = LinearModel(model.maps, model.weights * 0.01)
    own = torch.arange(6)
    _, theorem = model.log_bounds()
    exact = model.jacobian_norms().log()
    assert (exact[own, own] > theorem[own, own] - 4 * math.log(4)).any()


def test_sweeps_say_what_the_chapter_says() -> None:
    swept = {name: sweep(name) for name in SWEEPS}
    for numbers in (swept["sink"].exact, swept["sink"].tight, swept["sink"].theorem):
        assert numbers == sorted(numbers, reverse=True), "a stronger sink mixes less, and the bounds know it"
    gaps = [t - e for t, e in zip(swept["depth"].theorem, swept["depth"].exact, strict=True)]
    assert gaps == sorted(gaps), "the theorem's bound moves away with depth"


# -- bound and Jacobian together ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_compare_finds_no_violation_and_would_find_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = fake_lm(tiny_model(name))
    parameters = theory.Parameters(sources=2, directions=4)
    compared = theory.compare(lm, IDS, parameters)
    assert compared["violations"] == 0
    assert compared["pairs"] > 100
    for arm in ARMS:
        assert len(compared["bound"][arm]["log10_gain"]) == 4
        for gain, tight, theorem in zip(
            *(compared["bound"][arm][k] for k in ("log10_gain", "log10_tight", "log10_theorem")), strict=True
        ):
            assert gain["value"] <= tight["value"] <= theorem["value"] + 1e-9
    real = theory.log_path_sums
    monkeypatch.setattr(theory, "log_path_sums", lambda matrices: [log - 20 for log in real(matrices)])
    assert theory.compare(lm, IDS, parameters)["violations"] > 0


@pytest.mark.parametrize("tokens", [3, 4])
def test_one_pair_of_tokens_has_no_rank_correlation(tokens: int) -> None:
    """One source in three tokens has one later token; in four tokens, some texts draw a source with two."""
    ids = IDS.repeat(4, 1)[:, :tokens]
    compared = theory.compare(
        fake_lm(tiny_model("llama")), ids, theory.Parameters(sources=1, bound_text_tokens=tokens, directions=2)
    )
    json.dumps(compared, allow_nan=False)
    of_arm = [compared["bound"][arm]["rank_correlation"]["rollout"] for arm in ARMS]
    if tokens == 3:
        assert of_arm == [None, None]
    else:
        assert all(2 <= one["n"] < len(ids) for one in of_arm)
    assert compared["bound_over_jacobian"]["n"] == len(ids)
    record = records.Record("theory", "some-model", {}, compared, {})
    shown = figures.correlations([record]).text
    assert ("fewer than two texts have two pairs" in shown) == (tokens == 3)
    assert math.isnan(theory.rank_correlation(torch.ones(1), torch.ones(1)))


def test_too_many_repeats_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the model was run")

    monkeypatch.setattr(theory, "first_token_mass", never)
    lm = fake_lm(tiny_model("gpt2"))
    passages = ["".join(LETTERS[3:20])] * 2
    few = dict(passages=2, text_tokens=12, bounded=0)
    with pytest.raises(FirstTokenError, match=r"256 positions and cannot read 257 tokens.*to 247 or less"):
        theory.run(lm, theory.Parameters(**few, repeats=248), passages)
    with pytest.raises(AssertionError, match="was run"):
        theory.run(lm, theory.Parameters(**few, repeats=247), passages)


def test_other_architectures_say_why_they_have_no_bound() -> None:
    compared = theory.compare(fake_lm(tiny_model("gpt2")), IDS, theory.Parameters())
    assert "gpt2 is built otherwise" in compared["bound"]["refused"]
    with pytest.raises(FirstTokenError, match="gpt2"):
        weight_norms(tiny_model("gpt2"))


def test_rank_correlation_of_lists_with_known_answers() -> None:
    a = torch.tensor([0.1, 5.0, 2.0, 9.0])
    assert float(theory.rank_correlation(a, a.exp())) == pytest.approx(1)
    assert float(theory.rank_correlation(a, -a)) == pytest.approx(-1)
    # 1 - 6 (1 + 1) / (4 * 15), the two middle ranks exchanged
    assert float(theory.rank_correlation(a, torch.tensor([1.0, 2.0, 3.0, 4.0]))) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bounded": 1}, "bounded must be 0 or between 2 and passages=12, not 1"),
        ({"bounded": 13}, "bounded must be 0 or between 2 and passages=12, not 13"),
        ({"bound_text_tokens": 65}, "bound_text_tokens must be at most text_tokens=64, not 65"),
        ({"bound_text_tokens": 4}, "bound_text_tokens must be at least 5, not 4"),
        ({"text_tokens": 7, "bounded": 0}, "text_tokens must be at least 8, not 7"),
        ({"passages": 1, "bounded": 0}, "passages must be at least 2, not 1"),
        ({"directions": 1}, "directions must be at least 2, not 1"),
        ({"sources": 0}, "sources must be at least 1, not 0"),
        ({"repeats": 1}, "repeats must be at least 2, not 1"),
    ],
)
def test_bad_parameters(asked: dict[str, int], message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        theory.Parameters(**asked)


def test_a_text_that_is_too_short_for_the_bound_may_go_without_it() -> None:
    assert theory.Parameters(bounded=0, text_tokens=16).bound_text_tokens > 16


@pytest.mark.parametrize(
    ("broken", "violations", "orders", "without", "status"),
    [
        (0, 0, 100.0, 0.02, "partly"),
        (0, 0, 0.5, 0.02, "reproduced"),
        (0, 0, 0.5, 0.45, "partly"),
        (1, 0, 0.5, 0.02, "not reproduced"),
        (0, 1, 100.0, 0.02, "not reproduced"),
    ],
)
def test_verdicts_follow_from_the_numbers(
    broken: int, violations: int, orders: float, without: float, status: str
) -> None:
    def estimate(value: float) -> dict[str, Any]:
        return asdict(Estimate(value, value, value, 4))

    values = {
        "collapse": {
            "with_bos": {"broken": broken, "from_mean_text": [estimate(x) for x in (0.1, 0.2, 0.3)]},
            "without_bos": {"broken": broken, "from_mean_text": [estimate(x) for x in (0.2, 0.3, 0.1)]},
        },
        "violations": violations,
        "pairs": 1000,
        "bound": {},
        "bound_over_jacobian": estimate(orders),
        "path_sum_ratio": estimate(1000.0),
        "first_token_mass": {"with_bos": estimate(0.5), "without_bos": estimate(without)},
    }
    judged = verdict.judge(records.Record("theory", "some-model", {}, values, {}))
    assert judged.status == status
    assert "in 2 of 3 states of the residual stream and surely nearer in 1" in judged.sentence


def test_figures_of_a_model_without_a_bound() -> None:
    """As for an architecture that the bound is not derived for, or one streamed from disk."""
    [record, *_] = (records.read(path) for path in sorted(records.reference_store().glob("theory/*.json")))
    without = replace(record, values=record.values | {"bound": {"refused": "No derivation."}})
    assert "No derivation." in figures.bounds([without]).html
    assert "not compared" in figures.correlations([without]).html
    assert "<svg" in figures.bounds([without, record]).html
    assert short_name(record.model) in figures.correlations([without, record]).html
