"""Policies as masks against plain loops, and against a cache that throws tokens away in earnest."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from transformers import AutoConfig, DynamicCache

from fake import LETTERS, fake_lm
from firsttoken import models, texts
from firsttoken.claims.kv_cache import measure as kv_cache
from firsttoken.claims.kv_cache import policies, verdict
from firsttoken.claims.kv_cache.measure import Parameters, Stream
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.measures import cache_masks
from firsttoken.measures.cache_masks import Policy, Pruning, evicting, pruned_once
from firsttoken.measures.sink_window_cache import cache_bytes, sink_window_cache
from firsttoken.models.anatomy import rotate_half, rotations
from firsttoken.probe import probe
from firsttoken.records import Record
from tiny import ARCHITECTURES, sharp_model, tiny_model

LENGTH = 40
IDS = torch.randint(3, 97, (2, LENGTH), generator=torch.Generator().manual_seed(0))


# -- masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 4])
def test_masks_are_what_a_cache_would_hold(count: int) -> None:
    """Reference: a list from which tokens are taken one by one."""
    policy = Policy(10, "sinks", count)
    mask = cache_masks.allowed(policy, LENGTH)
    held: list[int] = []
    for query in range(LENGTH):
        held.append(query)
        if len(held) > 10:
            del held[count]
        assert mask[query].nonzero()[:, 0].tolist() == held


def test_random_tokens_are_kept_from_the_first_window() -> None:
    policy = Policy(10, "random", 3)
    kept = cache_masks.kept_keys(policy, LENGTH, seed=1)
    assert kept.sum() == 3
    assert not kept[0]
    assert kept[:10].sum() == 3
    assert not torch.equal(kept, cache_masks.kept_keys(policy, LENGTH, seed=2))
    mask = cache_masks.allowed(policy, LENGTH, seed=1)
    assert (mask.sum(1) <= 10).all()
    assert mask[-1].nonzero()[:, 0].tolist() == [*kept.nonzero()[:, 0].tolist(), *range(LENGTH - 7, LENGTH)]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
def test_the_hook_equals_a_mask_given_from_outside(name: str) -> None:
    """gemma3's sliding layers see what both its own window and the policy allow."""
    policy = Policy(8, "sinks", 2)
    model = tiny_model(name)
    with torch.no_grad(), probe(model, hook=evicting(model, policy)):
        logits = model(IDS, use_cache=False).logits
    blocked = torch.zeros(LENGTH, LENGTH).masked_fill(~cache_masks.allowed(policy, LENGTH), -torch.inf)
    given: Any = blocked[None, None].expand(2, 1, -1, -1)
    if name == "gemma3_text":
        query, key = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
        near = given.masked_fill(query - key >= model.config.sliding_window, -torch.inf)
        given = {"full_attention": given, "sliding_attention": near}
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(IDS, attention_mask=given, use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-3)


def test_only_the_named_layers_forget() -> None:
    model = tiny_model("gemma3_text")
    lm = fake_lm(model)
    assert kv_cache.full_layers(lm.model) == [1, 3]
    with torch.no_grad(), probe(model, keys=range(LENGTH), hook=evicting(model, Policy(4), [1, 3])) as p:
        model(IDS, use_cache=False)
    reach = [int((layer[0, 0, -1] > 0).sum()) for layer in p.attention_per_key]
    assert reach == [6, 4, 6, 4], "sliding windows of six, caches of four"


def read_by(model: Any, hook: Any, layer: int) -> list[list[int]]:
    """The keys that each query of a layer reads, in its first head, seen by their attention."""
    with torch.no_grad(), probe(model, keys=range(LENGTH), hook=hook) as p:
        model(IDS, use_cache=False)
    return [(row > 0).nonzero()[:, 0].tolist() for row in p.attention_per_key[layer][0, 0]]


@pytest.mark.parametrize("positions", ["original", "cache"])
def test_sliding_layers_can_be_shown_the_first_token(positions: Any) -> None:
    """Beside all that they see anyway: windows of six."""
    lm = fake_lm(tiny_model("gemma3_text"))
    hook = policies.first_for_sliding(lm, [0, 2], positions)
    for layer in (0, 2):
        plain = read_by(lm.model, None, layer)
        assert plain[-1] == [*range(LENGTH - 6, LENGTH)]
        assert read_by(lm.model, hook, layer) == [sorted({0, *row}) for row in plain]
    for layer in (1, 3):
        assert read_by(lm.model, hook, layer) == [[*range(query + 1)] for query in range(LENGTH)]


@pytest.mark.parametrize(("window", "own"), [(16, 6), (9, 12)])
def test_first_tokens_stay_in_sliding_layers_that_are_bounded_too(window: int, own: int) -> None:
    """Where a layer's own window is smaller than the cache, it holds no more than that."""
    tiny = ARCHITECTURES["gemma3_text"]
    config = AutoConfig.for_model(tiny.model_type, **(tiny.base | tiny.extra | {"sliding_window": own}))
    lm = fake_lm(sharp_model(config))
    hook = policies.policies(lm, window)["sinks 4, sliding layers too"]
    for layer, size in ((0, min(window, own)), (1, window), (2, min(window, own)), (3, window)):
        newest = size - 4
        expected = [[*range(min(4, j + 1)), *range(max(4, j - newest + 1), j + 1)] for j in range(LENGTH)]
        assert read_by(lm.model, hook, layer) == expected, layer


# -- a cache in earnest -------------------------------------------------------------------------------------


def stream(model: Any, ids: torch.Tensor, window: int, sinks: int, prefill: int) -> torch.Tensor:
    """Logits after every token from the first `prefill` on, one token at a time."""
    cache = sink_window_cache(model, window, sinks)
    logits = [model(ids[:, :prefill], past_key_values=cache, use_cache=True).logits]
    for place in range(prefill, ids.shape[1]):
        logits.append(model(ids[:, place : place + 1], past_key_values=cache, use_cache=True).logits)
        assert cache.get_seq_length() <= window - 1
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("name", ["llama", "llama-mqa", "qwen2", "qwen3"])
@pytest.mark.parametrize(("sinks", "prefill"), [(0, 1), (1, 5), (4, 9)])
def test_throwing_away_equals_masks(name: str, sinks: int, prefill: int) -> None:
    """Window and sinks with true eviction against one masked pass over the whole text."""
    model = tiny_model(name)
    policy = Policy(10, "sinks", sinks, "cache")
    with torch.no_grad():
        with probe(model, hook=evicting(model, policy)):
            expected = model(IDS, use_cache=False).logits
        streamed = stream(model, IDS, 10, sinks, prefill)
    torch.testing.assert_close(streamed, expected, atol=1e-4, rtol=1e-3)
    with torch.no_grad(), probe(model, hook=evicting(model, Policy(10, "sinks", sinks))):
        original = model(IDS, use_cache=False).logits
    if sinks:
        assert (original - expected).abs().max() > 1e-3, "positions matter"
    else:
        torch.testing.assert_close(original, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gemma", "cohere", "helium", "olmo"])
def test_renumbered_keys_are_those_of_a_text_of_its_own(name: str) -> None:
    """In one layer a key depends on its token and place alone, so the cache is a fresh text of the tokens it holds.

    Cohere and Helium turn neighbouring components of a head, the others its halves.
    """
    tiny = ARCHITECTURES[name]
    model = sharp_model(AutoConfig.for_model(tiny.model_type, **(tiny.base | tiny.extra | {"num_hidden_layers": 1})))
    sinks, window = 2, 8
    with torch.no_grad():
        with probe(model, hook=evicting(model, Policy(window, "sinks", sinks, "cache"))):
            masked = model(IDS, use_cache=False).logits
        thrown = stream(model, IDS, window, sinks, 5)
        for query in range(window, LENGTH):
            held = torch.cat([IDS[:, :sinks], IDS[:, query - (window - sinks) + 1 : query + 1]], dim=1)
            expected = model(held, use_cache=False).logits[:, -1]
            torch.testing.assert_close(masked[:, query], expected, atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(thrown[:, query], expected, atol=1e-4, rtol=1e-3)


def test_throwing_away_equals_masks_in_a_real_model() -> None:
    lm = models.load("smollm2-135m")
    ids = texts.encode(lm, [texts.passages()[0].text], 80, "auto")
    with torch.no_grad():
        with probe(lm.model, hook=evicting(lm.model, Policy(32, "sinks", 4, "cache"))):
            expected = lm.model(ids, use_cache=False).logits
        streamed = stream(lm.model, ids, 32, 4, 16)
    torch.testing.assert_close(streamed.log_softmax(-1), expected.log_softmax(-1), atol=2e-3, rtol=1e-3)


def test_a_bounded_cache_stays_bounded_beyond_the_longest_text() -> None:
    """More tokens than the model has positions."""
    model = tiny_model("llama")
    cache = sink_window_cache(model, 16, 4)
    sizes = set()
    with torch.no_grad():
        for number in range(3 * model.config.max_position_embeddings):
            logits = model(torch.tensor([[3 + number % 90]]), past_key_values=cache, use_cache=True).logits
            if number >= 16:
                sizes.add((cache.get_seq_length(), cache_bytes(cache)))
    assert sizes == {(15, 4 * 2 * 2 * 15 * 8 * 4)}, "layers, keys and values, heads, tokens, dim, bytes"
    assert torch.isfinite(logits).all()


def cut_in_earnest(model: Any, ids: torch.Tensor, pruning: Pruning) -> torch.Tensor:
    """Logits of the tokens after the context, read in one pass with a cache whose tensors were cut."""
    cache = DynamicCache(config=model.config)
    model(ids[:, : pruning.context], past_key_values=cache, use_cache=True)
    held = [*range(pruning.sinks), *range(pruning.context - pruning.kept + pruning.sinks, pruning.context)]
    first = pruning.context
    for number, layer in enumerate(cache.layers):
        layer.keys, layer.values = layer.keys[:, :, held], layer.values[:, :, held]
        if pruning.positions == "cache":
            # Each key is turned back by as many positions as its token moves down.
            first = pruning.kept
            cos, sin = rotations(model, torch.tensor(held) - torch.arange(pruning.kept), number)
            layer.keys = layer.keys * cos - rotate_half(layer.keys) * sin
    rest = ids[:, pruning.context :]
    place = torch.arange(first, first + rest.shape[1])[None]
    return model(rest, past_key_values=cache, position_ids=place, use_cache=True).logits


@pytest.mark.parametrize("name", ["llama", "llama-mqa", "qwen3"])
@pytest.mark.parametrize("positions", ["original", "cache"])
@pytest.mark.parametrize("sinks", [0, 1, 4])
def test_cutting_a_cache_once_equals_one_masked_pass(name: str, positions: Any, sinks: int) -> None:
    model = tiny_model(name)
    pruning = Pruning(25, 9, sinks, positions)
    with torch.no_grad():
        cut = cut_in_earnest(model, IDS, pruning)
        with probe(model, hook=pruned_once(model, pruning)):
            masked = model(IDS, use_cache=False).logits
        plain = model(IDS, use_cache=False).logits
    torch.testing.assert_close(masked[:, 25:], cut, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(masked[:, :25], plain[:, :25], atol=1e-4, rtol=1e-3)
    assert (masked[:, 25:] - plain[:, 25:]).abs().max() > 1e-2, "the cut changes what comes after it"
    with torch.no_grad(), probe(model, hook=pruned_once(model, Pruning(25, 9, sinks))):
        original = model(IDS, use_cache=False).logits
    assert positions == "original" or sinks == 0 or (original - masked).abs().max() > 1e-3, "positions matter"


def test_a_cut_by_hand() -> None:
    mask = cache_masks.allowed_once(Pruning(6, 3, 1), 9)
    assert [row.nonzero()[:, 0].tolist() for row in mask[5:]] == [
        [0, 1, 2, 3, 4, 5],
        [0, 4, 5, 6],
        [0, 4, 5, 6, 7],
        [0, 4, 5, 6, 7, 8],
    ]
    assert torch.equal(cache_masks.allowed_once(Pruning(6, 6), 9), torch.ones(9, 9).tril().bool()), "nothing is cut"


# -- the chapter --------------------------------------------------------------------------------------------


def test_summary_by_hand() -> None:
    loss = {
        "full": torch.tensor([2.0, 3.0]),
        "window": torch.tensor([4.0, 6.0]),
        "sinks 4": torch.tensor([2.5, 3.5]),
        "random 4": torch.tensor([4.0, 5.0]),
    }
    values = kv_cache.summary({name: numbers.double() for name, numbers in loss.items()})
    assert values["policies"]["window"]["increase"]["value"] == pytest.approx(2.5)
    assert values["policies"]["window"]["perplexity"]["value"] == pytest.approx(math.exp(5))
    assert values["recovered"]["value"] == pytest.approx(1 - 1 / 5)
    assert values["recovered_random"]["value"] == pytest.approx(1 - 4 / 5)
    assert values["perplexity_ratio"]["value"] == pytest.approx(math.exp(0.5))


def test_random_tokens_are_drawn_for_each_text() -> None:
    """Reference: eager attention under every choice of four of the first window's tokens but the first."""
    model = tiny_model("llama")
    lm = fake_lm(model)
    window, copies = 16, 4
    ids = IDS[:1].expand(copies, -1)
    choices = list(itertools.combinations(range(1, window), 4))
    query, key = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    newest = (key <= query) & (key > query - (window - 4))
    kept = torch.zeros(len(choices), 1, LENGTH, dtype=torch.bool)
    for row, choice in enumerate(choices):
        kept[row, 0, list(choice)] = True
    may = (newest | (kept & (key <= query)))[:, None]
    queries = range(window, LENGTH - 1, kv_cache.STRIDE)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        blocked: Any = torch.zeros(may.shape).masked_fill(~may, -torch.inf)
        log = model(ids[:1].expand(len(choices), -1), attention_mask=blocked, use_cache=False).logits.log_softmax(-1)
    by_choice = -torch.stack([log[:, j, ids[0, j + 1]] for j in queries], dim=1).double().mean(1)

    def drawn(seed: int, count: int = copies) -> list[tuple[int, ...]]:
        parameters = Parameters(windows=2, length=32, window=window, seed=seed)
        losses = kv_cache.random_losses(lm, ids[:count], parameters)
        gaps = (losses[:, None] - by_choice).abs()
        assert gaps.min(1).values.max() < 1e-5
        return [choices[place] for place in gaps.argmin(1).tolist()]

    model.set_attn_implementation("sdpa")
    first = drawn(0)
    assert len(set(first)) == copies, "one draw for each text"
    assert drawn(0, 2) == first[:2], "which does not depend on how many there are"
    assert not set(first) & set(drawn(1)), "but on the seed"


@pytest.mark.parametrize("bos", ["always", "never"])
def test_a_window_computed_anew_is_a_text_of_its_own(bos: Any) -> None:
    lm = fake_lm(tiny_model("llama"))
    text = "".join(LETTERS[3 + (i * i) % 90] for i in range(400))
    parameters = Parameters(windows=2, length=48, window=16, bos=bos, batch_tokens=50)
    ids = texts.windows(lm, text, 48, 2, bos)
    means = []
    for row in ids.tolist():
        losses = []
        for query in range(16, 47, kv_cache.STRIDE):
            newest = row[: query + 1][-15 if bos == "always" else -16 :]
            seen = [1, *newest] if bos == "always" else newest
            assert len(seen) == 16
            with torch.no_grad():
                losses.append(-float(lm.model(torch.tensor([seen])).logits[0, -1].log_softmax(-1)[row[query + 1]]))
        means.append(sum(losses) / len(losses))
    torch.testing.assert_close(
        kv_cache.recomputed(lm, ids, parameters), torch.tensor(means).double(), atol=1e-5, rtol=0
    )


def test_models_whose_positions_cannot_be_renumbered_keep_them() -> None:
    """gpt2 learns positions; the chapter runs on it, with first tokens where they were."""
    lm = fake_lm(tiny_model("gpt2"))
    assert "no rotary positions" in policies.why_not_renumbered(lm)
    assert not kv_cache.can_stream(lm)
    hooks = policies.policies(lm, 16)
    assert "sinks 4, original positions" not in hooks
    with torch.no_grad():
        with probe(lm.model, hook=hooks["sinks 4"]):
            kept = lm.model(IDS, use_cache=False).logits
        with probe(lm.model, hook=evicting(lm.model, Policy(16, "sinks", 4))):
            expected = lm.model(IDS, use_cache=False).logits
    assert torch.equal(kept, expected)


def test_a_model_that_slides_in_every_layer_has_no_cache_to_bound() -> None:
    lm = fake_lm(tiny_model("mistral-sliding"))
    with pytest.raises(FirstTokenError, match="slides over 6 tokens of its own"):
        policies.policies(lm, 8)
    assert not kv_cache.can_stream(lm)


def test_repetition() -> None:
    assert kv_cache.repeated(list(range(100))) == 0
    assert kv_cache.repeated([1, 2, 3, 4] * 25) == pytest.approx(1 - 4 / 97, abs=1e-4)


def test_records_of_a_tiny_model(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.setattr(kv_cache, "MARK", 20)
    lm = fake_lm(tiny_model("llama"))
    values = kv_cache.STREAM.record(lm, Stream(stream=60, window=24)).values
    assert values["tokens"] == [20, 40, 60]
    assert values["cached"] == [23, 23, 23]
    assert len(set(values["bytes"])) == 1
    assert all(0 < surprise < 10 for surprise in values["surprise"])
    assert values["window_only"]["cached"] == [23, 23, 23]
    assert values["window_only"]["text"] != values["text"], "the control reads something else"
    again = kv_cache.STREAM.record(lm, Stream(stream=60, window=24), fresh=True).values
    assert again["text"] == values["text"], "the same seed"

    monkeypatch.setattr(kv_cache.texts, "long_text", lambda: "".join(LETTERS[3 + (i * i) % 90] for i in range(400)))
    monkeypatch.setattr(kv_cache.task_scores, "needle", lambda *_, **__: None)
    monkeypatch.setattr(kv_cache, "retrieval", lambda *_: {})
    record = kv_cache.MEASUREMENT.record(lm, Parameters(windows=3, length=64, window=16))
    assert record.verdict == verdict.judge(record)
    ids = texts.windows(lm, kv_cache.texts.long_text(), 64, 3, "auto")
    with torch.no_grad():
        log = lm.model(ids).logits.log_softmax(-1)
    losses = [-float(log[t, j, ids[t, j + 1]]) for t in range(3) for j in range(16, 63, kv_cache.STRIDE)]
    full = record.values["policies"]["full"]["loss"]["value"]
    assert full == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_bad_input() -> None:
    llama, gpt2, gemma = (tiny_model(name) for name in ("llama", "gpt2", "gemma3_text"))
    with pytest.raises(FirstTokenError, match="no room for 8 kept ones"):
        evicting(llama, Policy(8, "sinks", 8))
    with pytest.raises(FirstTokenError, match="can be renumbered"):
        evicting(llama, Policy(8, "heavy", 0, "cache"))
    with pytest.raises(FirstTokenError, match="no rotary positions"):
        evicting(gpt2, Policy(8, "sinks", 2, "cache"))
    with pytest.raises(FirstTokenError, match="cannot be cut to 12"):
        pruned_once(llama, Pruning(10, 12))
    with pytest.raises(FirstTokenError, match="no rotary positions"):
        pruned_once(gpt2, Pruning(10, 4, 2, "cache"))
    with pytest.raises(FirstTokenError, match="slide over 6 tokens"):
        sink_window_cache(gemma, 16, 4)
    with pytest.raises(FirstTokenError, match="no room for 15 sinks"):
        sink_window_cache(llama, 16, 15)
    with pytest.raises(FirstTokenError, match="takes 7 at once"):
        llama(IDS, past_key_values=sink_window_cache(llama, 8, 1), use_cache=True)
    with pytest.raises(FirstTokenError, match="past the window"):
        Parameters(length=100, window=128)
    with pytest.raises(FirstTokenError, match="at least 1000; not 10"):
        Stream(stream=10)
    with pytest.raises(FirstTokenError, match="window of at least 17, not 16"):
        Stream(window=16)


@pytest.mark.parametrize(
    ("harm", "recovered", "control", "status"),
    [
        (1.0, 0.9, 0.1, "reproduced"),
        (1.0, 0.9, 0.85, "partly"),
        (1.0, 0.3, 0.1, "partly"),
        (1.0, 0.0, 0.1, "not reproduced"),
        (0.05, 0.9, 0.1, "inconclusive"),
    ],
)
def test_verdicts_follow_from_the_numbers(harm: float, recovered: float, control: float, status: str) -> None:
    def estimate(value: float) -> dict[str, Any]:
        return asdict(Estimate(value, value - 0.1, value + 0.1, 8))

    values = {
        "policies": {"window": {"increase": estimate(harm)}},
        "recovered": estimate(recovered),
        "recovered_random": estimate(control),
        "perplexity_ratio": estimate(1.1),
        "sliding_layers": 0,
    }
    assert verdict.judge(Record("kv_cache", "some-model", {}, values, {})).status == status
