"""What is taken from heads, against loops; which heads are chosen; what the numbers decide."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fake import fake_lm
from firsttoken import records, statistics
from firsttoken.claims.compression import figures
from firsttoken.claims.compression.caches import CACHES
from firsttoken.claims.compression.choices import CHOICES, choose
from firsttoken.claims.compression.measure import MEASUREMENT, Parameters
from firsttoken.claims.compression.treatments import coarsened, removed, scores_left, shortened
from firsttoken.claims.compression.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.measures.rounding import round_to_bits
from firsttoken.probe import probe
from firsttoken.records import Record
from tiny import tiny_model

IDS = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(0))
CHOSEN = {1: [0, 3], 2: [1]}
NAMES = ["llama", "gpt2", "gemma3_text"]


def logits(model: Any, hook: Any = None) -> torch.Tensor:
    with torch.no_grad(), probe(model, hook=hook):
        out: torch.Tensor = model(IDS, use_cache=False).logits
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_removed_head_is_one_whose_output_matrix_is_zero(name: str) -> None:
    """The reference takes the head's columns out of the weights."""
    seen = logits(tiny_model(name), removed(CHOSEN))
    model = tiny_model(name)
    decoder = model.get_decoder()
    layers = decoder.h if name == "gpt2" else decoder.layers
    with torch.no_grad():
        for layer, heads in CHOSEN.items():
            for head in heads:
                part = slice(8 * head, 8 * head + 8)
                if name == "gpt2":
                    layers[layer].attn.c_proj.weight[part] = 0
                else:
                    layers[layer].self_attn.o_proj.weight[:, part] = 0
    torch.testing.assert_close(seen, logits(model), atol=1e-5, rtol=1e-5)
    assert (seen - logits(tiny_model(name))).abs().max() > 1e-3


def test_a_shortened_head_reads_the_first_token_and_a_window() -> None:
    model = tiny_model("llama")
    with torch.no_grad(), probe(model, keys=range(20), hook=shortened(CHOSEN, 4)) as p:
        model(IDS, use_cache=False)
    for layer in range(4):
        for head in range(4):
            for query in range(20):
                read = (p.attention_per_key[layer, 0, head, query] > 0).nonzero()[:, 0].tolist()
                short = head in CHOSEN.get(layer, [])
                expected = sorted({0, *range(max(0, query - 3), query + 1)}) if short else list(range(query + 1))
                assert read == expected, (layer, head, query)


def test_scores_left_are_counted() -> None:
    length, window, heads = 20, 4, 16
    left = 0
    for head in range(heads):
        for query in range(length):
            short = head < 3
            left += len({0, *range(max(0, query - window + 1), query + 1)}) if short else query + 1
    share = left / (heads * length * (length + 1) / 2)
    assert scores_left(CHOSEN, window, length, heads) == pytest.approx(share)


@pytest.mark.parametrize("name", NAMES)
def test_coarse_heads_come_back_as_they_were(name: str) -> None:
    model = tiny_model(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    plain = logits(model)
    with coarsened(model, CHOSEN, 2):
        changed = [key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])]
        assert len(changed) == 2, changed
        assert (logits(model) - plain).abs().max() > 1e-3
        if name == "llama":
            weight, old = (state["model.layers.1.self_attn.o_proj.weight"] for state in (model.state_dict(), before))
            for head in range(4):
                part = slice(8 * head, 8 * head + 8)
                expected = round_to_bits(old[:, part], 2, 1) if head in (0, 3) else old[:, part]
                torch.testing.assert_close(weight[:, part], expected)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_every_choice_takes_as_many_heads() -> None:
    mass = torch.rand(6, 5, generator=torch.Generator().manual_seed(3))
    layers = [1, 3, 5, 7, 9, 11]  # of a hybrid
    flat = mass.flatten().sort(descending=True).values
    for share in (0.01, 0.2, 0.5):
        count = max(1, round(30 * share))
        sets = {choice: choose(mass, share, choice, layers, seed=2) for choice in CHOICES}
        for chosen in sets.values():
            assert sum(map(len, chosen.values())) == count
            assert set(chosen) <= set(layers)
            assert all(len(set(heads)) == len(heads) for heads in chosen.values())
        most = [
            float(mass[layers.index(layer), head]) for layer, heads in sets["most at rest"].items() for head in heads
        ]
        assert min(most) == flat[count - 1]
        least = [float(mass[layers.index(i), head]) for i, heads in sets["least at rest"].items() for head in heads]
        assert max(least) == flat[-count]
        per_layer = {layer: len(heads) for layer, heads in sets["most at rest"].items()}
        assert {layer: len(heads) for layer, heads in sets["random, same layers"].items()} == per_layer
    assert choose(mass, 0.2, "random", layers, 0) != choose(mass, 0.2, "random", layers, 1)
    assert choose(mass, 0.2, "random", layers, 4) == choose(mass, 0.2, "random", layers, 4)


def test_an_interval_over_draws_and_texts_covers_both() -> None:
    """Rows that differ widen it, whatever the columns do, and the other way round."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(8, 12, generator=generator)
    by_row, by_column = torch.randn(8, 1, generator=generator), torch.randn(1, 12, generator=generator)
    for table, least in ((noise + by_row, 0.5), (noise + by_column, 0.5)):
        estimate = statistics.over_both(table)
        assert estimate.value == pytest.approx(float(table.mean()))
        assert estimate.high - estimate.low > least
    narrow = statistics.over_both(noise)
    assert narrow.high - narrow.low < 0.02
    with pytest.raises(FirstTokenError, match="at least two random draws"):
        statistics.over_both(noise[:1])


def test_bytes_of_a_cache() -> None:
    """4 layers, 2 key-value heads of 8, keys and values: 128 numbers a token."""
    lm = fake_lm(tiny_model("llama"))
    expected = {
        "8 bits": 128,
        "2 bits": 32,
        "2 bits, the first exact": 32 + 128 * (16 - 2) / 8 / 128,
        "the newest": 256 * 32 / 128,
        "the first and the newest, 4 bits": (31 * 64 + 256) / 128,
    }
    needed = {cache.name: cache.bytes_a_token(lm, length=128, window=31) for cache in CACHES}
    assert {name: needed[name] for name in expected} == pytest.approx(expected)
    assert len(needed) == len(CACHES)
    committed = records.find("compression", "smollm2-135m")
    assert committed is not None
    assert [one["policy"] for one in committed.values["cache"]] == list(needed)


def record(removing: float, shortening: float, coarse: float, exact: float) -> Record:
    def at(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 12}

    both = {
        name: {"random": at(value), "random, same layers": at(value)}
        for name, value in (("remove", removing), ("shorten", shortening), ("coarsen", coarse))
    }
    deciding = both | {"share": 0.2, "bits": 2, "first_exact": at(exact)}
    return Record("compression", "some-model", {}, {"deciding": deciding}, {})


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((-1, -1, -1, -1), "reproduced"),
        ((-1, -1, -1, 0), "partly"),
        ((1, -1, 0, 0), "partly"),
        ((0, 0, 0, 0), "inconclusive"),
        ((1, 0, 0, 0), "not reproduced"),
    ],
)
def test_verdicts_follow_from_the_numbers(numbers: tuple[float, float, float, float], status: str) -> None:
    assert judge(record(*numbers)).status == status


def test_a_part_needs_both_controls() -> None:
    one = record(-1, -1, -1, -1)
    one.values["deciding"]["remove"]["random, same layers"] |= {"low": -0.1, "high": 0.1}
    assert judge(one).status == "partly"


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((-1, -1), "inconclusive"),
        ((0, 0), "inconclusive"),
        ((1, 1), "inconclusive"),
        ((-1, 0), "partly"),
        ((1, -1), "partly"),
    ],
)
def test_fewer_parts_decide_only_what_the_others_could_not_change(numbers: tuple[float, float], status: str) -> None:
    """Whatever the two parts that are missing would be, a verdict that is given would be the same."""
    removing, exact = numbers
    part = record(removing, 0, 0, exact)
    for name in ("shorten", "coarsen"):
        del part.values["deciding"][name]
    verdict = judge(part)
    assert verdict.status == status
    possible = {
        judge(record(removing, shorten, coarse, exact)).status for shorten in (-1, 0, 1) for coarse in (-1, 0, 1)
    }
    assert (possible == {status}) == (status != "inconclusive")
    assert ("Not measured: shortening and coarsening." in verdict.sentence) == (status == "inconclusive")


def test_removal_only_is_the_same_with_less() -> None:
    """On a tiny model: every number that both have is the same, and figures and tables are drawn of both together."""
    lm = fake_lm(tiny_model("llama"))
    small: dict[str, Any] = {"windows": 2, "length": 24, "window": 8, "draws": 2}
    passages = [MEASUREMENT.passages(Parameters())[0][:1000]]
    whole = MEASUREMENT.run(lm, Parameters(**small), passages)
    part = MEASUREMENT.run(lm, Parameters(**small, removal_only=True), passages)
    assert part["heads"] == [one for one in whole["heads"] if one["treatment"] == "remove"]
    assert len(whole["heads"]) == 3 * len(part["heads"])
    assert set(whole["deciding"]) - set(part["deciding"]) == {"shorten", "coarsen"}
    assert all(part["deciding"][name] == whole["deciding"][name] for name in part["deciding"])
    assert {key: part[key] for key in part if key not in ("heads", "deciding")} == {
        key: whole[key] for key in whole if key not in ("heads", "deciding")
    }
    both = [Record("compression", name, {}, values, {}) for name, values in (("whole", whole), ("part", part))]
    for draw in (figures.heads, figures.deciding, figures.work, figures.cache, figures.cache_table):
        assert draw(both)
    assert figures.heads(both).html.count("not run") == 2, "a panel says what was not measured"


def test_bad_input() -> None:
    with pytest.raises(FirstTokenError, match="draws must be at least 2"):
        Parameters(draws=1)
    with pytest.raises(FirstTokenError, match="at least twice that, not 12, 32 and 40"):
        Parameters(length=40)
