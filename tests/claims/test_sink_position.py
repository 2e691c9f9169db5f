"""Readings of a text and profiles over keys, against eager attention."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fake import LETTERS, Letters, fake_lm
from firsttoken import records, texts
from firsttoken.claims.sink_position import figures
from firsttoken.claims.sink_position import measure as sink_position
from firsttoken.claims.sink_position.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record
from tiny import tiny_model

LENGTH = 32
TEXTS = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(60)) for i in range(6)]


def test_profile_equals_eager() -> None:
    lm = fake_lm(tiny_model("llama"))
    ids = torch.randint(3, 97, (4, LENGTH))
    alpha, hidden = sink_position.profiles(lm, sink_position.Inputs(ids), batch_tokens=3 * LENGTH)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = lm.model.model(ids, output_attentions=True, output_hidden_states=True)
    for layer, maps in enumerate(out.attentions):
        for key in (0, 5, LENGTH - 2):
            expected = maps[..., key + 1 :, key].mean(-1)
            torch.testing.assert_close(alpha[:, layer, :, key], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[:, 2, 1], out.hidden_states[2][:, LENGTH // 4], atol=1e-4, rtol=1e-4)
    # transformers normalises the last of its hidden states; the residual stream is what goes into that norm.
    normed = lm.model.model.norm(hidden[:, -1])
    torch.testing.assert_close(normed[:, 1], out.hidden_states[-1][:, LENGTH // 4], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(hidden[:, -1, 1], out.hidden_states[-1][:, LENGTH // 4], atol=1e-2)


@pytest.mark.parametrize("prepends", [True, False])
def test_readings_are_what_they_say(prepends: bool) -> None:
    lm = fake_lm(tiny_model("llama"), Letters(prepends=prepends))
    inputs = sink_position.readings(lm, TEXTS, LENGTH, seed=0)
    assert {one.ids.shape for one in inputs.values()} == {(6, LENGTH)}
    own = inputs["as it is"].ids
    assert (own[:, 0] == 1).all() == prepends
    assert ("without BOS" in inputs, "with BOS" in inputs) == (prepends, not prepends)
    middle = LENGTH // 2
    swapped = inputs["swapped"].ids
    assert torch.equal(swapped[:, 0], own[:, middle])
    assert torch.equal(swapped[:, middle], own[:, 0])
    assert (inputs["BOS inside"].ids[:, middle] == 1).all()
    assert torch.equal(inputs["another first token"].ids[:, 1:], own[:, 1:])
    assert not (inputs["another first token"].ids[:, 0] == 1).any()
    plain = own[:, 1:] if prepends else own
    assert torch.equal(inputs["window shifted"].ids[:, :8], plain[:, 8:16])


def test_renumbering_changes_nothing_with_rotary_positions() -> None:
    """And does with learned ones, so the reading is a real test."""
    for name, same in (("llama", True), ("gpt2", False)):
        lm = fake_lm(tiny_model(name))
        inputs = sink_position.readings(lm, TEXTS, LENGTH, seed=0)
        plain, moved = (sink_position.profiles(lm, inputs[key])[0] for key in ("as it is", "renumbered"))
        assert torch.allclose(plain, moved, atol=1e-3) == same


def test_a_planted_secondary_sink_is_found() -> None:
    alpha = torch.full((2, 3, 4, 20), 0.02)
    alpha[..., 0] = 0.6
    alpha[:, 1, 2, 7] = 0.5  # one head of twelve, in the second layer, at token 7
    alpha[:, :, :, 19] = 0.9  # the tail says nothing
    tokens = [[f"t{i}" for i in range(20)]] * 2
    elsewhere = sink_position.secondary(alpha, tokens, 0.3, seed=0)
    assert elsewhere["head_share"]["value"] == pytest.approx(1 / 12)
    assert elsewhere["by_layer"] == pytest.approx([0, 0.25, 0], abs=1e-3)
    assert elsewhere["first_by_layer"] == [1, 1, 1]
    assert [e["token"] for e in elsewhere["examples"]] == ["t7", "t7"]
    assert elsewhere["examples"][0]["position"] == 7


def test_identity_by_hand() -> None:
    hidden = torch.zeros(4, 2, 2, 4)
    hidden[:, 0, 0] = torch.eye(4)[[0, 1, 2, 2]]  # three different tokens at first, one of them twice
    hidden[:, 1, 0, 3] = torch.tensor([1.0, 2.0, 5.0, 1.0])  # the same direction afterwards
    hidden[:, :, 1, 0] = 1.0
    tokens = torch.tensor([[5, 1], [6, 2], [7, 3], [7, 1]])
    cosines = sink_position.identity(hidden, tokens)
    assert cosines == {"first": [0, 1], "ordinary": [1, 1]}
    assert sink_position.identity(hidden, tokens[:, [0, 0]].where(torch.tensor([True, False]), 9)) is None


def test_identity_leaves_out_texts_with_the_same_token() -> None:
    hidden = torch.randn(7, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 1], [2, 4], [1, 4], [3, 4], [2, 5], [9, 6], [1, 7]])
    for place, name in enumerate(("first", "ordinary")):
        expected = [
            [
                torch.cosine_similarity(hidden[a, layer, place], hidden[b, layer, place], dim=0)
                for a in range(7)
                for b in range(7)
                if tokens[a, place] != tokens[b, place]
            ]
            for layer in range(3)
        ]
        cosines = sink_position.identity(hidden, tokens)
        assert cosines is not None
        assert cosines[name] == pytest.approx([float(torch.stack(of).mean()) for of in expected], abs=1e-3)


def record(prepends: bool, kept: float, other: float) -> Record:
    """A record in which this share of the mass is kept, and so much is left without BOS and drawn in the middle."""
    first = {"first": {"value": 0.4}}
    inside = {"second": {"value": 0.1}}
    swapped = {"first": {"value": 0.4}, "second": {"value": other}}
    values: dict[str, Any] = {
        "prepends_bos": prepends,
        "first_token_kept": {"value": kept, "low": kept - 0.02, "high": kept + 0.02, "n": 9},
        "readings": {
            "as it is": first, "without BOS": {"first": {"value": other}}, "BOS inside": inside, "swapped": swapped
        },
    }  # fmt: skip
    return Record("sink_position", "tiny", {}, values, {})


def test_verdicts() -> None:
    assert judge(record(True, 0.05, 0.02)).status == "reproduced"
    assert judge(record(True, 0.9, 0.02)).status == "partly"
    assert judge(record(True, 0.9, 0.4)).status == "not reproduced"
    assert judge(record(False, 0.95, 0.02)).status == "reproduced"
    assert judge(record(False, 0.1, 0.4)).status == "not reproduced"


def test_the_record_holds_what_the_readings_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    (tmp_path / "texts.txt").write_text("\n---\n".join(TEXTS))
    lm = fake_lm(tiny_model("llama"))
    parameters = sink_position.Parameters(text_source=str(tmp_path / "texts.txt"), passages=6, length=LENGTH)
    measured = sink_position.MEASUREMENT.record(lm, parameters)
    assert records.read(tmp_path / "results" / "sink_position" / "tiny.json") == measured
    assert sink_position.MEASUREMENT.asked(measured) == parameters
    inputs = sink_position.readings(lm, texts.exactly(parameters.text_source, 6), LENGTH, seed=0)
    mass = {name: sink_position.profiles(lm, one)[0][..., 0].mean().item() for name, one in inputs.items()}
    stored = {name: reading["first"]["value"] for name, reading in measured.values["readings"].items()}
    assert stored == pytest.approx(mass, abs=1e-6)
    kept = measured.values["first_token_kept"]
    assert kept["value"] == pytest.approx(mass["another first token"] / mass["as it is"], abs=1e-6)
    assert kept["n"] == 6


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"length": 10}, "length of 24 tokens or more"),
        ({"epsilon": 2.0}, "between 0 and 1"),
        ({"passages": 1}, "passages must be at least 2"),
    ],
)
def test_each_number_has_a_range(given: dict[str, Any], words: str) -> None:
    with pytest.raises(FirstTokenError, match=words):
        sink_position.Parameters(**given)


def test_too_few_texts_and_too_short_ones() -> None:
    lm = fake_lm(tiny_model("llama"))
    with pytest.raises(FirstTokenError, match="fewer than passages=9999"):
        sink_position.MEASUREMENT.record(lm, sink_position.Parameters(passages=9999))
    with pytest.raises(FirstTokenError, match="fewer than the"):
        sink_position.readings(lm, TEXTS, 200, seed=0)


class NoBosToken(Letters):
    """Puts two tokens first, as GLM's tokenizer does, and has no BOS token by name."""

    bos_token_id = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        seen = super().__call__(text, add_special_tokens=False).input_ids
        return SimpleNamespace(input_ids=[1, 2, *seen] if add_special_tokens else seen)


def test_what_a_tokenizer_without_a_bos_token_puts_first_counts_as_one() -> None:
    lm = fake_lm(tiny_model("llama"), NoBosToken())
    parameters = sink_position.Parameters(passages=6, length=LENGTH)
    values = sink_position.run(lm, parameters, TEXTS)
    inputs = sink_position.readings(lm, TEXTS, LENGTH, seed=0)
    assert torch.equal(inputs["without BOS"].ids[:, : LENGTH - 2], inputs["as it is"].ids[:, 2:])
    assert (inputs["BOS inside"].ids[:, LENGTH // 2] == 1).all()
    assert "without BOS" in judge(Record("sink_position", "some-model", {}, values, {})).sentence


@pytest.mark.parametrize(("length", "there"), [(LENGTH, True), (200, False)])
def test_a_model_is_not_renumbered_beyond_its_positions(length: int, there: bool) -> None:
    lm = fake_lm(tiny_model("gpt2"))
    longer = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(220)) for i in range(2)]
    assert ("renumbered" in sink_position.readings(lm, longer, length, seed=0)) == there
    values = sink_position.run(lm, sink_position.Parameters(passages=2, length=length), longer)
    record = Record("sink_position", "some-model", {}, values, {})
    assert judge(record).sentence
    assert figures.readings([record]).text
