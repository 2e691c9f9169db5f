"""What is measured is measured once: which questions are the same, and what a new record says of itself."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from firsttoken import records
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record, Verdict
from firsttoken.records.provenance import machine
from firsttoken.records.reuse import UNSTAMPED

pytestmark = pytest.mark.usefixtures("stores")


class Model:
    """A model, as far as a record knows it."""

    slug = "tiny"

    def __init__(self, **identity: str) -> None:
        self.identity = {"fingerprint": "f1", "dtype": "float32", "quantisation": None, "device": "cpu", **identity}

    def provenance(self) -> dict[str, Any]:
        return self.identity


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
    assert measure(0.75, model=Model(conversion=UNSTAMPED)) == first, "a record from before the rules were named"
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="a record names the card")
def test_a_processor_is_named_with_the_instructions_that_round_its_sums() -> None:
    """The same seeds trained on two processors of one name gave other models."""
    assert measure().provenance["machine"].endswith(f" cores, {torch.backends.cpu.get_cpu_capability()}")


def test_the_machine_is_that_of_the_device_that_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"card {device}")
    instructions = torch.backends.cpu.get_cpu_capability()
    on = {device: measure(model=Model(device=device), fresh=True).provenance for device in ("cpu", "cuda", "cuda:1")}
    assert {device: on[device]["machine"] for device in ("cuda", "cuda:1")} == {
        "cuda": "card cuda",
        "cuda:1": "card cuda:1",
    }
    assert on["cpu"]["machine"].endswith(f" cores, {instructions}")
    assert machine()["machine"] == "card None", "what models are trained on"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    put_together = measure(model=Model(device="cuda"), fresh=True).provenance["machine"]
    assert put_together.endswith(f" cores, {instructions}"), "runs of another computer, put together on this one"


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 11}, raising=False)
    assert ", 3 cores, " in measure().provenance["machine"]
    monkeypatch.delattr(os, "sched_getaffinity")
    assert ", 64 cores, " in measure(fresh=True).provenance["machine"]


def test_another_machine_does_not_change_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure()
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert measure(0.75) == first


def test_time_is_measured() -> None:
    assert measure(measure=lambda: time.sleep(0.11) or {"rate": 1.0}).provenance["seconds"] >= 0.1
