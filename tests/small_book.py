"""Small books of made-up chapters, and launches of them, for the tests of `firsttoken.book`."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat

from firsttoken.files import ROOT

PARAMETERS = """model: str = "tiny"  # which model
passages: int = 8  # how many
epsilon: float = 0.3
fresh: bool = False
lengths: list = [16, 64]
bos: str | None = None
seed = 0
"""

# A model named bad always fails; one named flaky fails the first time. Each leaves a mark for each attempt.
CELL = """
from pathlib import Path
marks = Path(folder)
attempt = len(list(marks.glob(model + ".*")))
(marks / f"{model}.{attempt}").touch()
if model == "bad" or (model == "flaky" and attempt == 0):
    raise ValueError(f"{model} does not work")
"""


def notebook(root: Path, name: str, *cells: str, parameters: str = PARAMETERS) -> None:
    content = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    content.cells = [nbformat.v4.new_markdown_cell(f"# {name}"), tagged, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(content, root / "notebooks" / f"{name}.ipynb")


def launchable(folder: Path) -> Path:
    """A book in `folder` whose one chapter marks each attempt."""
    (folder / "notebooks").mkdir()
    (folder / "marks").mkdir()
    notebook(folder, "works", CELL, parameters='model: str = "m"\nfolder: str = ""\n')
    return folder


def attempts(root: Path) -> dict[str, int]:
    names = [mark.name.split(".")[0] for mark in (root / "marks").iterdir()]
    return {name: names.count(name) for name in sorted(set(names))}


def interrupted(root: Path, where: dict[str, Any]) -> str:
    """What a launch prints that gets Ctrl-C while its job runs; the job leaves its process number in marks/slow."""
    cell = (
        "import os, time\nfrom pathlib import Path\nPath(folder, model).write_text(str(os.getpid()))\ntime.sleep(90)"
    )
    notebook(root, "waits", cell, parameters='model: str = "m"\nfolder: str = ""\n')
    script = f"""
import signal
from pathlib import Path
from firsttoken.book.cluster import Where, launch, plan_runs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background may be deaf to it
root = Path({str(root)!r})
launch(plan_runs("slow", ["waits"], {{"folder": str(root / "marks")}}, root), Where(**{where}), root / "logs")
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    mark, deadline = root / "marks" / "slow", time.monotonic() + 120
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < deadline, "the job never ran"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode
    return out
