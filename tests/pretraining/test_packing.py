"""Packing against loops over every pair of tokens, and against what a model does with one document alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining.corpora import BOS, EOS, Corpus, CorpusSpec, open_corpus
from firsttoken.pretraining.packing import FIXED, Packing, Window, Windows, collate, labels, may_attend, positions


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two hundred documents of random words."""
    folder: Path = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for number in range(200):
        words = " ".join(rng.choice(["sink", "value", "query", "key", "head", "mix"], rng.integers(50, 200)))
        (folder / f"{number}.txt").write_text(f"document {number} {words}")
    return open_corpus(CorpusSpec(str(folder), vocabulary=300))


def stream(corpus: Corpus, packing: Packing, windows: Windows) -> list[int]:
    """The whole stream of the first round, joined in a loop."""
    tokens: list[int] = []
    for number in np.random.default_rng([windows.seed, 0]).permutation(corpus.numbers(held_out=False)):
        tokens += [BOS] if packing.bos == "documents" else []
        tokens += corpus.document(int(number)).tolist()
        tokens += [EOS] if packing.eos else []
    return tokens


@pytest.mark.parametrize("bos", ["never", "documents", "fixed"])
@pytest.mark.parametrize("eos", [True, False])
def test_windows_are_the_stream_cut_side_by_side(corpus: Corpus, bos: str, eos: bool) -> None:
    packing = Packing(length=32, bos=bos, eos=eos)  # type: ignore[arg-type]
    windows = Windows(corpus, packing, count=4000, seed=3)
    whole = stream(corpus, packing, windows)
    assert windows.round == len(whole)
    each = 31 if bos == "fixed" else 32
    for number in (0, 1, 17, len(whole) // each - 1):
        ids = windows[number].ids.tolist()
        assert ids[32 - each :] == whole[number * each : (number + 1) * each]
        assert (ids[0] == BOS and BOS not in ids[1:]) or bos != "fixed"


def test_a_document_ends_where_its_eos_stands(corpus: Corpus) -> None:
    windows = Windows(corpus, Packing(length=256, bos="documents"), count=50)
    for window in windows:
        owner, expected = 0, []
        for token in window.ids.tolist():
            expected.append(owner)
            owner += token == EOS
        assert window.documents.tolist() == expected


def test_reading_goes_round_in_another_order_without_losing_a_document(corpus: Corpus) -> None:
    packing = Packing(length=32)
    one = Windows(corpus, packing, count=1)
    count = 2 * one.round // 32
    windows = Windows(corpus, packing, count=count)
    tokens = [token for window in windows for token in window.ids.tolist()]
    first, second = tokens[: one.round], tokens[one.round :]
    assert first[:500] != second[:500]
    assert first.count(EOS) == len(windows.numbers)
    assert windows.rounds == pytest.approx(2, abs=0.01)
    assert [w.ids.tolist() for w in Windows(corpus, packing, 20, seed=1)] != [
        windows[i].ids.tolist() for i in range(20)
    ]


def test_share_of_windows_with_several_documents(corpus: Corpus) -> None:
    windows = Windows(corpus, Packing(length=64, bos="fixed"), count=300)
    borders = sum(len(set(window.documents.tolist())) > 2 for window in (windows[i] for i in range(200)))
    assert windows.shared(200) == borders / 200
    assert 0 < windows.shared(200) < 1


def test_only_documents_that_are_long_enough(corpus: Corpus) -> None:
    least = int(np.median(corpus.lengths))
    windows = Windows(corpus, Packing(length=32), count=5, least=least)
    assert (corpus.lengths[windows.numbers] >= least).all()
    with pytest.raises(FirstTokenError, match="no document of 1000000 tokens"):
        Windows(corpus, Packing(length=32), count=5, least=1_000_000)


documents_strategy = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def numbered(lengths: list[int], fixed: bool) -> Tensor:
    row = [FIXED] if fixed else []
    for number, length in enumerate(lengths):
        row += [number] * length
    return torch.tensor([row])


@given(documents_strategy, st.booleans(), st.sampled_from(["causal", "intra_document"]))
@settings(deadline=None, max_examples=60)
def test_mask_is_what_a_loop_over_pairs_says(lengths: list[int], fixed: bool, masking: str) -> None:
    documents = numbered(lengths, fixed)
    seen = may_attend(documents, masking)[0]  # type: ignore[arg-type]
    owner = documents[0].tolist()
    for query in range(len(owner)):
        for key in range(len(owner)):
            allowed = key <= query
            if masking == "intra_document":
                allowed = allowed and (owner[query] == owner[key] or (fixed and key == 0))
            assert bool(seen[query, key]) == allowed


@given(documents_strategy, st.booleans())
@settings(deadline=None, max_examples=60)
def test_positions_count_within_documents(lengths: list[int], fixed: bool) -> None:
    expected = [0] if fixed else []
    for length in lengths:
        expected += [i + fixed for i in range(length)]
    assert positions(numbered(lengths, fixed))[0].tolist() == expected


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4
    )
    return LlamaForCausalLM(config).eval()


def logits(model: LlamaForCausalLM, windows: list[Window], packing: Packing) -> Tensor:
    batch = collate(windows, packing)
    with torch.no_grad():
        return model(**{**batch, "labels": None}, use_cache=False).logits


@pytest.mark.parametrize("bos", ["never", "documents", "fixed"])
@pytest.mark.parametrize("reset", [True, False])
def test_a_document_in_a_window_is_read_as_if_alone(
    corpus: Corpus, model: LlamaForCausalLM, bos: str, reset: bool
) -> None:
    packing = Packing(256, "intra_document", bos, reset_positions=reset)  # type: ignore[arg-type]
    windows = Windows(corpus, packing, count=6)
    tested = 0
    for number, both in enumerate(logits(model, [windows[i] for i in range(6)], packing)):
        window = windows[number]
        for document in range(window.documents.max() + 1):
            own = torch.from_numpy(window.documents == document)
            ids, place = torch.from_numpy(window.ids)[own], own.nonzero()[:, 0]
            if bos == "fixed":
                ids = torch.cat([torch.tensor([BOS]), ids])
                place = torch.cat([torch.tensor([0]), place])
            # Rotary scores depend on differences of positions only, but a fixed BOS is far from a late document.
            where = torch.arange(len(ids)) if reset else place
            with torch.no_grad():
                # The mask keeps transformers from reading a jump in the positions as a border of documents.
                alone = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()[None, None]
                expected = model(ids[None], attention_mask=alone, position_ids=where[None], use_cache=False).logits[0]
            torch.testing.assert_close(both[own], expected[bos == "fixed" :], atol=1e-5, rtol=1e-4)
            tested += 1
    assert tested > 6


def test_causal_packing_with_positions_reset_still_sees_earlier_documents(
    corpus: Corpus, model: LlamaForCausalLM
) -> None:
    packing = Packing(256, "causal", "never", reset_positions=True)
    window = next(w for w in Windows(corpus, packing, count=20) if w.documents.max() > 0)
    border = int((window.documents == 0).sum())
    changed = Window(window.ids.copy(), window.documents)
    changed.ids[0] = (changed.ids[0] + 1) % 300
    before, after = logits(model, [window], packing)[0], logits(model, [changed], packing)[0]
    assert not torch.allclose(before[border:], after[border:], atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"masking": "block"}, "masking is"), ({"bos": "yes"}, "bos in training"), ({"length": 2}, "8 tokens")],
)
def test_unknown_packing_is_one_sentence(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(FirstTokenError, match=says):
        Packing(**wrong)  # type: ignore[arg-type]


def test_loss_on_the_second_half_is_that_of_its_queries_made_by_hand() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                         num_attention_heads=2, num_key_value_heads=2)).eval()  # fmt: skip
    windows = [Window(row.numpy(), np.zeros(16, dtype=np.int64)) for row in torch.randint(50, (3, 16))]
    for loss, first in (("all", 0), ("second_half", 8)):
        batch = collate(windows, Packing(length=16, loss=loss))  # type: ignore[arg-type]
        with torch.no_grad():
            out = model(**batch)
            by_hand = []
            for text in range(3):
                for query in range(first, 15):
                    goal = int(batch["input_ids"][text, query + 1])
                    by_hand.append(-float(out.logits[text, query].log_softmax(-1)[goal]))
        assert float(out.loss) == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-5)
    assert torch.equal(batch["input_ids"], torch.from_numpy(np.stack([window.ids for window in windows])))


def test_no_gradient_comes_from_positions_without_loss() -> None:
    goals = labels(torch.arange(24).view(2, 12) + 1, "second_half")
    assert goals[0].tolist() == [-100] * 7 + [8, 9, 10, 11, 12]  # goals of positions 6 to 10


def test_another_place_of_the_loss_is_one_sentence() -> None:
    with pytest.raises(FirstTokenError, match="all or second_half"):
        Packing(loss="first_half")  # type: ignore[arg-type]
