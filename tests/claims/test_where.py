"""Readings of a text and profiles over keys, against eager attention."""

from __future__ import annotations

import pytest
import torch

from fake import LETTERS, Letters, fake_lm
from firsttoken.claims.where import measure as where
from firsttoken.errors import FirstTokenError
from tiny import tiny_model

LENGTH = 32
TEXTS = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(60)) for i in range(6)]


def test_profile_equals_eager() -> None:
    lm = fake_lm(tiny_model("llama"))
    ids = torch.randint(3, 97, (4, LENGTH))
    alpha, hidden = where.profiles(lm, where.Inputs(ids), batch_tokens=3 * LENGTH)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = lm.model.model(ids, output_attentions=True, output_hidden_states=True)
    for layer, maps in enumerate(out.attentions):
        for key in (0, 5, LENGTH - 2):
            expected = maps[..., key + 1 :, key].mean(-1)
            torch.testing.assert_close(alpha[:, layer, :, key], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[:, 2, 1], out.hidden_states[2][:, LENGTH // 4], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prepends", [True, False])
def test_readings_are_what_they_say(prepends: bool) -> None:
    lm = fake_lm(tiny_model("llama"), Letters(prepends=prepends))
    found = where.readings(lm, TEXTS, LENGTH, seed=0)
    assert {given.ids.shape for given in found.values()} == {(6, LENGTH)}
    own = found["as it is"].ids
    assert (own[:, 0] == 1).all() == prepends
    assert ("without BOS" in found, "with BOS" in found) == (prepends, not prepends)
    middle = LENGTH // 2
    swapped = found["swapped"].ids
    assert torch.equal(swapped[:, 0], own[:, middle])
    assert torch.equal(swapped[:, middle], own[:, 0])
    assert (found["BOS inside"].ids[:, middle] == 1).all()
    assert torch.equal(found["another first token"].ids[:, 1:], own[:, 1:])
    assert not (found["another first token"].ids[:, 0] == 1).any()
    plain = own[:, 1:] if prepends else own
    assert torch.equal(found["window shifted"].ids[:, :8], plain[:, 8:16])


def test_renumbering_changes_nothing_with_rotary_positions() -> None:
    """And does with learned ones, so the reading is a real test."""
    for name, same in (("llama", True), ("gpt2", False)):
        lm = fake_lm(tiny_model(name))
        found = where.readings(lm, TEXTS, LENGTH, seed=0)
        plain, moved = (where.profiles(lm, found[key])[0] for key in ("as it is", "renumbered"))
        assert torch.allclose(plain, moved, atol=1e-3) == same


def test_a_planted_secondary_sink_is_found() -> None:
    alpha = torch.full((2, 3, 4, 20), 0.02)
    alpha[..., 0] = 0.6
    alpha[:, 1, 2, 7] = 0.5  # one head of twelve, in the second layer, at token 7
    alpha[:, :, :, 19] = 0.9  # the tail says nothing
    tokens = [[f"t{i}" for i in range(20)]] * 2
    found = where.secondary(alpha, tokens, 0.3, seed=0)
    assert found["head_share"]["value"] == pytest.approx(1 / 12)
    assert found["by_layer"] == pytest.approx([0, 0.25, 0], abs=1e-3)
    assert found["first_by_layer"] == [1, 1, 1]
    assert [e["token"] for e in found["examples"]] == ["t7", "t7"]
    assert found["examples"][0]["position"] == 7


def test_identity_by_hand() -> None:
    hidden = torch.zeros(3, 2, 2, 4)
    hidden[:, 0, 0] = torch.eye(4)[:3]  # three different tokens at first
    hidden[:, 1, 0, 3] = torch.tensor([1.0, 2.0, 5.0])  # the same direction afterwards
    hidden[:, :, 1, 0] = 1.0
    found = where.identity(hidden)
    assert found["first"] == [0, 1]
    assert found["ordinary"] == [1, 1]


def verdict_values(prepends: bool, kept: float, other: float) -> dict:
    first = {"first": {"value": 0.4}}
    inside = {"second": {"value": 0.1}}
    swapped = {"first": {"value": 0.4}, "second": {"value": other}}
    return {
        "prepends_bos": prepends,
        "first_token_kept": {"value": kept, "low": kept - 0.02, "high": kept + 0.02, "n": 9},
        "readings": {
            "as it is": first, "without BOS": {"first": {"value": other}}, "BOS inside": inside, "swapped": swapped
        },
    }  # fmt: skip


def test_verdicts() -> None:
    assert where.judge(verdict_values(True, 0.05, 0.02)).status == "reproduced"
    assert where.judge(verdict_values(True, 0.9, 0.02)).status == "partly"
    assert where.judge(verdict_values(True, 0.9, 0.4)).status == "not reproduced"
    assert where.judge(verdict_values(False, 0.95, 0.02)).status == "reproduced"
    assert where.judge(verdict_values(False, 0.1, 0.4)).status == "not reproduced"


def test_clear_messages() -> None:
    lm = fake_lm(tiny_model("llama"))
    with pytest.raises(FirstTokenError, match="length of 24 tokens or more"):
        where.measure(lm, where.Where(length=10))
    with pytest.raises(FirstTokenError, match="between 0 and 1"):
        where.measure(lm, where.Where(epsilon=2.0))
    with pytest.raises(FirstTokenError, match="fewer than passages=9999"):
        where.measure(lm, where.Where(passages=9999))
    with pytest.raises(FirstTokenError, match="fewer than length"):
        where.readings(lm, TEXTS, 200, seed=0)
