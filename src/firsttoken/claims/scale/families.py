"""Families of models: what a line in a figure joins."""

from __future__ import annotations

import re
from collections.abc import Sequence

from firsttoken.model_names import own_name
from firsttoken.records import Record

_SIZE = re.compile(r"[-_]\d+(\.\d+)?[mMbB](?=[-_.]|$)")


def family(name: str) -> str:
    """A model's name without its size: `EleutherAI/pythia-1.4b` and `EleutherAI/pythia-70m` are one family."""
    return _SIZE.sub("", name, count=1)


def by_family(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records grouped by family, each from small to large."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.values["parameters"]):
        groups.setdefault(family(own_name(record)), []).append(record)
    return groups
