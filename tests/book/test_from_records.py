"""A chapter that finds its records does not load what only measuring needs: most of what a process begins with."""

from __future__ import annotations

import subprocess
import sys

from firsttoken import claims

# What a notebook does before it has its records, for all chapters at once.
CHAPTERS = """
import importlib, sys
from firsttoken import claims, models
from firsttoken.book.notebook import Notebook
for name in claims.names():
    for part in ("measure", "figures"):
        importlib.import_module(f"firsttoken.claims.{name}.{part}")
chapter = Notebook("sink_rates", {"model": "smollm2-135m", "passages": 170})
from firsttoken.claims.sink_rates import figures, measure
measured = chapter.records(measure.MEASUREMENT)
figures.by_layer(measured)
chapter.foot(measured)
print(measured[0].model, *(name for name in ("transformers", "accelerate", "plotly") if name in sys.modules))
"""


def test_a_chapter_of_records_needs_no_transformers() -> None:
    assert len(claims.names()) >= 20
    done = subprocess.run([sys.executable, "-c", CHAPTERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "smollm2-135m"
