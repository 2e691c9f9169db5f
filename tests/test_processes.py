"""A process that is killed leaves nothing behind that goes on working."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from firsttoken.book import ahead
from firsttoken.pretraining import whole_runs

PARENT = """
import multiprocessing, sys, time
from pathlib import Path

def child(mark):
    from firsttoken.processes import end_with_parent
    import os
    end_with_parent()
    Path(mark).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child, args=(sys.argv[1],), daemon=True).start()
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of init that nobody has waited for yet is no longer there for us.
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_ends_with_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    script, mark = tmp_path / "parent.py", tmp_path / "mark"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(mark)])
    try:
        deadline = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        pid = int(mark.read_text())
        assert alive(pid)
        parent.send_signal(how)
        parent.wait()
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(pid)
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize(("module", "start"), [(whole_runs, "train_in_child"), (ahead, "_serve")])
def test_every_process_of_ours_begins_so(module: Any, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class BegunError(Exception):
        pass

    def begin() -> None:
        raise BegunError

    monkeypatch.setattr(module, "end_with_parent", begin)
    with pytest.raises(BegunError):
        getattr(module, start)(*[None] * getattr(module, start).__code__.co_argcount)
