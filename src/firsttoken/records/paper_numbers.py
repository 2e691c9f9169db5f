"""What the paper reports, and the settings under which it does."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from firsttoken.estimates import JSON
from firsttoken.records.store import reference_store


@cache
def paper() -> JSON:
    """The paper's own numbers, `results/paper.json`: each with its table or figure and a `mark` of where it is from.

    `certain`: printed in the paper. `digitised`: read off a figure, to a few points. `disputed`: what the number says
    is not settled; `why` tells.
    """
    path = reference_store() / "paper.json"
    # An installed copy has no store of committed records; `setup.py` puts this one file beside the module.
    source = path if path.exists() else resources.files("firsttoken.records") / "paper.json"
    numbers: JSON = json.loads(source.read_text(encoding="utf-8"))
    return numbers


PAPER_EPSILON = 0.8


PAPER_LENGTH = 64
