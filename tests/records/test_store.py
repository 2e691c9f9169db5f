"""The results store: nothing half written, nothing wrong reused, one sentence for what cannot be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsttoken import files, records
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record, Verdict, paper_numbers, store


class Model:
    """A model, as far as a record knows it."""

    slug = "tiny"

    def __init__(self, **identity: str) -> None:
        self.identity = {"fingerprint": "f1", "dtype": "float32", "quantisation": None, "device": "cpu", **identity}

    def provenance(self) -> dict[str, Any]:
        return self.identity


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A reference and a local store of their own."""
    reference, local = tmp_path / "results", tmp_path / "results" / "local"
    monkeypatch.setattr(store, "ROOT", tmp_path)
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(local))
    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    return reference, local


RECORD = Record("claim", "tiny", {"n": 1}, {"rate": 0.5}, {}, verdict=Verdict("partly", "Half of them."))


def measure(value: float = 0.25, calls: list | None = None, model: Model | None = None, **options: Any) -> Record:
    def counted() -> dict[str, Any]:
        if calls is not None:
            calls.append(1)
        return {"rate": value}

    asked: dict[str, Any] = {
        "parameters": {"n": 1, "shape": (2, 3)},
        "texts_hash": "t1",
        "measure": counted,
        **options,
    }
    return records.reuse_or_measure("claim", model=model or Model(), **asked)


def test_what_is_written_is_read() -> None:
    path = records.write(RECORD)
    assert records.read(path) == RECORD
    assert records.find("claim", "Tiny") == RECORD
    assert records.find("claim", "other") is None


def test_slug() -> None:
    assert files.slug("meta-llama/Llama-3.1-8B") == "meta-llama-llama-3-1-8b"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(FirstTokenError, match=r"values that are not finite numbers \(1: deep.0.value\)"):
        records.write(replace(RECORD, values={"deep": [{"value": bad}]}))
    assert records.find("claim", "tiny") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stored: "{", "cannot be read"),
        (lambda stored: "[]", "schema None"),
        (lambda stored: json.dumps({**stored, "schema": 0}), "schema 0"),
        (lambda stored: json.dumps({k: v for k, v in stored.items() if k != "values"}), "values"),
        (lambda stored: json.dumps({**stored, "extra": 1}), "extra"),
        (lambda stored: json.dumps({**stored, "version": "1"}), "version"),
        (lambda stored: "[" * 100_000, "cannot be read"),
        (lambda stored: '{"schema": ' + "1" * 5000 + "}", "cannot be read"),
        (lambda stored: json.dumps({**stored, "provenance": {"model": None}}), "does not say which model"),
        (lambda stored: json.dumps({**stored, "provenance": {"model": "x"}}), "does not say which model"),
    ],
    ids=[
        "half",
        "no object",
        "old schema",
        "missing field",
        "unknown field",
        "wrong type",
        "deep",
        "long number",
        "no model",
        "a name alone",
    ],
)
def test_a_bad_record_is_one_sentence(change: Any, words: str) -> None:
    path = records.write(RECORD)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(FirstTokenError, match=words) as caught:
        records.read(path)
    assert str(path) in str(caught.value)
    assert "run the chapter again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_question_is_not_measured_twice() -> None:
    calls: list = []
    first = measure(calls=calls)
    assert measure(0.75, calls) == first
    assert len(calls) == 1
    assert measure(calls=calls, model=Model(device="cuda")) == first, "the device does not change the question"


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"n": 2}},
        {"texts_hash": "t2"},
        {"version": 2},
        {"fresh": True},
        {"model": Model(fingerprint="f2")},
        {"model": Model(dtype="bfloat16")},
        {"model": Model(quantisation="Q4_1")},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_question_is_measured(other: dict[str, Any]) -> None:
    measure()
    assert measure(0.75, **other).values == {"rate": 0.75}


def test_other_rules_for_gguf_files_are_another_question() -> None:
    first = measure()
    assert measure(0.75, model=Model(conversion=store.UNSTAMPED)) == first, "a record from before the rules were named"
    assert measure(0.75, model=Model(conversion="4")).values == {"rate": 0.75}
    assert measure(0.5, model=Model(conversion="4")).values == {"rate": 0.75}
    assert measure(0.5).values == {"rate": 0.5}


@pytest.mark.parametrize("provenance", [{}, {"model": None}, {"model": "x"}, {"model": {}}])
def test_a_record_of_no_known_model_answers_for_none(stores: tuple[Path, Path], provenance: dict[str, Any]) -> None:
    measure()
    path = stores[1] / "claim" / "tiny.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "provenance": provenance}))
    assert measure(0.75).values == {"rate": 0.75}


@pytest.mark.parametrize("place", ["file", "/proc/nope", "folder"])
def test_a_place_that_cannot_be_written_is_told_before_measuring(
    place: str, stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "folder":  # where the record would be
        (stores[1] / "claim" / "tiny.json").mkdir(parents=True)
    elif place == "file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "file"))
    else:
        monkeypatch.setenv("FIRSTTOKEN_RESULTS", place)
    calls: list = []
    with pytest.raises(FirstTokenError, match=r"^Records cannot be written to [^\n]*, so nothing is measured") as said:
        measure(calls=calls)
    assert not calls
    assert "None" not in str(said.value)


def test_a_corrupt_record_is_measured_again(stores: tuple[Path, Path], capsys: pytest.CaptureFixture) -> None:
    measure()
    (stores[1] / "claim" / "tiny.json").write_text("{")
    assert measure(0.75).values == {"rate": 0.75}
    assert "measured again" in capsys.readouterr().out


def test_a_local_record_hides_the_reference(stores: tuple[Path, Path]) -> None:
    records.write(RECORD, stores[0])
    assert records.find("claim", "tiny") == RECORD
    mine = replace(RECORD, values={"rate": 0.75})
    records.write(mine)
    assert records.find("claim", "tiny") == mine
    assert records.all_records("claim") == [mine]


def test_the_reference_is_reused_unless_one_measures_here(
    stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    records.write(measure(), stores[0])
    (stores[1] / "claim" / "tiny.json").unlink()
    assert measure(0.75).values == {"rate": 0.25}
    monkeypatch.setenv("FIRSTTOKEN_MEASURE_HERE", "1")
    assert measure(0.75).values == {"rate": 0.75}


def test_the_judge_speaks_and_provenance_is_complete() -> None:
    record = measure(judge=lambda judged: Verdict("reproduced", f"It is {judged.values['rate']} of {judged.model}."))
    assert record.verdict == Verdict("reproduced", "It is 0.25 of tiny.")
    assert {"model", "texts_hash", "packages", "python", "machine", "commit", "dirty", "seconds", "time"} <= set(
        record.provenance
    )


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_atomically(path, "old")

    def fail(*names: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    script = (
        "import os, sys, time, pathlib\nfrom firsttoken.records import write_atomically\n"
        "os.fsync = lambda handle: (print('writing', flush=True), time.sleep(60))\n"
        f"write_atomically(pathlib.Path({str(path)!r}), 'new' * 1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert path.read_text() == "old"


def test_differences_are_named() -> None:
    ours = {"rate": {"value": 0.5}, "layers": [1.0, 2.0], "name": "a"}
    assert list(records.differences(ours, ours, 1e-6)) == []
    theirs = {"rate": {"value": 0.6}, "layers": [1.0], "name": "b"}
    lines = list(records.differences(ours, theirs, 1e-3))
    assert [line.split(":")[0] for line in lines] == [".layers", ".name", ".rate.value"]


def test_the_papers_numbers_are_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    paper_numbers.paper.cache_clear()
    assert all("where" in part for name, part in paper_numbers.paper().items() if name != "source")


def test_time_is_measured() -> None:
    assert measure(measure=lambda: time.sleep(0.11) or {"rate": 1.0}).provenance["seconds"] >= 0.1


def test_rows_belong_to_the_layers_that_the_check_saw() -> None:
    hybrid = replace(RECORD, provenance={"check": {"layers": [1, 3]}})
    assert hybrid.layer_numbers(2) == [1, 3]
    assert hybrid.layer_numbers(4) == [0, 1, 2, 3], "a value with a row for every layer"
    assert replace(RECORD, provenance={}).layer_numbers(3) == [0, 1, 2]
    assert replace(RECORD, provenance={"check": {"layers": None}}).layer_numbers(2) == [0, 1]
