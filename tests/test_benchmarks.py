"""What the benchmarks promise that does not depend on how fast a machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from firsttoken.files import ROOT


def test_streaming_a_gigabyte_reads_each_byte_once_and_holds_two_layers(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/streaming.py", "--size", "1", "--repeats", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    values = json.loads(done.stdout[done.stdout.index("\n{\n") :])
    assert values["checkpoint_bytes"] == pytest.approx(1e9, rel=0.1)
    assert 1.0 <= values["bytes_ratio"] <= 1.02
    assert values["memory_ratio"] <= 1.3
    assert values["memory_ratio"] > 0.5, "the peak was not measured"
    (ways,) = values["rounds"]
    # None at all where the folder lies in memory; else a cache must not have helped one way and not the other.
    assert ways["streamed"]["bytes_from_disk"] >= 0.9 * ways["sequential"]["bytes_from_disk"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("python", "why"),
    [("/no/such/python", "cannot be run"), (sys.executable, "No module named 'kvpress'"), ("true", "wrote no losses")],
)
def test_an_environment_without_kvpress_gets_one_sentence(python: str, why: str) -> None:
    command = [sys.executable, "benchmarks/press.py", "--python", python, "--windows", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert why in line
    assert "kvpress" in line


def test_a_comparison_that_cuts_nothing_is_refused() -> None:
    command = [sys.executable, "benchmarks/press.py", "--python", sys.executable, "--kept", "384"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "sinks < kept < context" in done.stderr.strip()


def test_skipping_computes_what_a_mask_would_leave() -> None:
    command = [sys.executable, "benchmarks/skipping.py", "--length", "160", "--window", "16", "--repeats", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    arms = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [arm["threshold"] for arm in arms] == [0.9, 0.7, 0.5, 0.3]
    left = [arm["scores_left"] for arm in arms]
    assert 1 > left[0] > left[-1] > 0
    for arm in arms:
        assert arm["largest_difference"] < 1e-4
        assert arm["decided_otherwise"] < 1e-3
        assert arm["time_ratio"] > 0
