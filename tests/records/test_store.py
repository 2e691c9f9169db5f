"""The results store: nothing half written, one sentence for what cannot be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsttoken import files, records
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record, Verdict, paper_numbers

pytestmark = pytest.mark.usefixtures("stores")

RECORD = Record("claim", "tiny", {"n": 1}, {"rate": 0.5}, {}, verdict=Verdict("partly", "Half of them."))


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


def test_a_local_record_hides_the_reference(stores: tuple[Path, Path]) -> None:
    records.write(RECORD, stores[0])
    assert records.find("claim", "tiny") == RECORD
    mine = replace(RECORD, values={"rate": 0.75})
    records.write(mine)
    assert records.find("claim", "tiny") == mine
    assert records.all_records("claim") == [mine]


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


def test_the_papers_numbers_are_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    paper_numbers.paper.cache_clear()
    assert all("where" in part for name, part in paper_numbers.paper().items() if name != "source")
