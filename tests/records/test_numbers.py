"""Numbers in prose: read from records, "not run" where there is none, an error where the key is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsttoken import claims, records
from firsttoken.book.page import papermill_command, provenance, rerun_command, verdict, verdicts
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record, Verdict, paper_numbers
from firsttoken.records.numbers import Quoted, fill, quote

RECORD = Record(
    claim="claim",
    model="tiny",
    parameters={"seed": 3},
    values={
        "rate": {"value": 0.5, "low": 0.4, "high": 0.61, "n": 170},
        "layers": [0.1, 0.2],
        "deep": {"eps": {"a": 2}},
        "seeds": [{"loss": 1.5}, None],
    },
    provenance={
        "model": {"name": "org/<tiny>", "dtype": "float32"},
        "commit": "c" * 40,
        "dirty": True,
        "texts_hash": "t1",
    },
    verdict=Verdict("partly", "What an old rule said."),
)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    records.write(RECORD)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("claim.tiny.rate:.1%", Quoted("50.0%", "95 % interval 40.0% to 61.0%, n = 170", "[40.0%, 61.0%]")),
        ("claim.tiny.rate.low:.2f", Quoted("0.40")),
        ("claim.tiny.layers.1:.1f", Quoted("0.2")),
        ("claim.tiny.deep.eps.a", Quoted("2")),
        ("claim.other.rate:.1%", Quoted("not run", measured=False)),
        ("claim.tiny--variant.rate", Quoted("not run", measured=False)),
        ("claim.tiny.seeds.0.loss:.1f", Quoted("1.5")),
        ("claim.tiny.seeds.1.loss:.1f", Quoted("not run", measured=False)),
        ("claim.tiny.seeds.1:.1f", Quoted("not run", measured=False)),
        ("paper.packing.rows.2.sink_rate:.2%", Quoted("90.84%")),
        ("paper.llama.meta-llama-llama-3-1-8b.sink_rate:.2%", Quoted("45.97%")),
        ("paper.apostrophe_head.layer", Quoted("1")),
        ("paper.weight_decay.0.1:.0%", Quoted("about 46% (disputed)", quote("paper.weight_decay.0:.0%").detail)),
    ],
)
def test_a_key_shows_its_number(key: str, shown: Quoted) -> None:
    assert quote(key) == shown


@pytest.mark.parametrize(
    ("key", "text", "mark"),
    [
        ("paper.mass_405b.value:.0%", "about 80% (disputed)", "disputed: text, share"),
        ("paper.context_length.2048:.0%", "about 39%", "digitised: figure of sink rate"),
    ],
)
def test_a_number_that_is_not_printed_in_the_paper_says_so(key: str, text: str, mark: str) -> None:
    shown = quote(key)
    assert shown.text == text
    assert shown.detail.startswith(mark)
    assert text in fill("{" + key.removeprefix("paper.") + "}")


def test_every_number_of_the_paper_says_how_it_was_obtained() -> None:
    for name, entry in paper_numbers.paper().items():
        if name != "source":
            assert entry["mark"] in ("certain", "digitised", "disputed"), name
            assert entry["where"]
            assert (entry["mark"] == "certain") == ("why" not in entry), name


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("claim.tiny.rat:.1%", "at 'rat'; there is"),
        ("claim.tiny.layers.7", "at '7'"),
        ("claim.tiny.layers:.1%", "cannot be shown"),
        ("claim.tiny.deep", "cannot be shown"),
        ("claim.tiny", "form claim.model.name"),
        ("paper.nothing", "at 'nothing'"),
    ],
)
def test_a_wrong_key_is_an_error(key: str, words: str) -> None:
    with pytest.raises(FirstTokenError, match=words):
        quote(key)


@pytest.mark.parametrize("name", claims.names())
def test_what_the_paper_says_of_each_claim_can_be_filled_in(name: str) -> None:
    assert "{" not in fill(claims.claim(name).paper)


def test_a_verdict_is_a_word_and_escaped_and_what_todays_rule_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not run" in verdict(RECORD).html, "it is about no claim"
    monkeypatch.setattr(claims, "verdict", lambda record: Verdict("partly", f"Half of <them>, {record.model}."))
    html = verdict(RECORD).html
    assert "Verdict: partly" in html
    assert "Half of &lt;them&gt;, tiny." in html
    assert "old rule" not in html
    assert "not run" in verdict(None).html


def test_the_rule_stands_below_the_verdicts() -> None:
    card = claims.claim("sink_position")
    for shown in (verdicts("sink_position", []), verdicts("sink_position", [RECORD])):
        assert "not run" in shown.text
        assert f"The rule: {card.rule_in_full} Fixed: {card.fixed}. Intervals are over {card.unit}." in shown.text
        assert f"Another explanation: {card.alternative}" in shown.text
        assert shown.text.endswith(f"What would change our mind: {card.would_change}"), "nothing is reproduced"
    assert "The numbers are over one text, so no interval." in verdicts("phenomenon", []).text


def test_provenance_has_origin_and_commands() -> None:
    shown = provenance("sink_rates", {"model": "a b", "fresh": False, "n": 3, "lengths": [1, 2]}, [RECORD])
    for words in ("org/&lt;tiny&gt;", "cccccccccccc with uncommitted changes", "170", "float32", "t1", "seed"):
        assert words in shown.html
    assert shown.text.splitlines()[-1].startswith("papermill notebooks/sink_rates.ipynb")


@pytest.mark.parametrize(
    ("outputs", "weights", "words"),
    [
        ({"subject": "model and copy", "logits": 0.0}, {"checked": True}, "file; outputs with and without the probe"),
        ({"subject": "copy", "logits": 1e-7}, {"checked": True}, "outputs of a small random copy with and without"),
        ({"subject": "unchecked"}, {"checked": True}, "outputs with the probe were not compared"),
        (None, {"checked": True, "mapped": "names without _orig_mod."}, "read under names without _orig_mod."),
        (None, {"checked": True, "ignored": ["a", "b"], "ignored_count": 9}, "no place for 9 of the file"),
        (None, {"checked": False}, "not checked"),
    ],
)
def test_what_was_checked_is_told_in_full(outputs: Any, weights: Any, words: str) -> None:
    model = RECORD.provenance["model"] | {"weights": weights}
    record = replace(RECORD, provenance=RECORD.provenance | {"model": model, "check": outputs})
    assert words in provenance("sink_rates", {}, [record]).html


def test_commands_repeat_the_run() -> None:
    values = {"model": "it's", "fresh": False, "n": 3, "lengths": [1, 2]}
    assert (
        rerun_command("c", values)
        == "firsttoken run c -p model 'it'\"'\"'s' -p fresh false -p n 3 -p lengths '[1, 2]'"
    )
    assert papermill_command("c", {"model": "8", "fresh": True}) == (
        "papermill notebooks/c.ipynb c.out.ipynb -r model 8 -y 'fresh: true'"
    )
