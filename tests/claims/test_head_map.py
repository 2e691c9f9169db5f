"""What the live map of heads is given: the record's own numbers, in a page or in a file of their own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from firsttoken.claims.phenomenon import figures
from firsttoken.claims.phenomenon.head_map import Choice, caption, compact, maps_script
from firsttoken.measures.attention_maps import pack
from firsttoken.plots import Display
from firsttoken.records import Record

STILL = Display("<p>still</p>", "still")


@pytest.fixture
def record() -> Record:
    """Two layers, numbered 1 and 3, of two heads, on three tokens."""
    even = pack(torch.tril(torch.ones(3, 3)) / torch.arange(1, 4)[:, None])
    values = {
        "tokens": ["<bos>", "</script>", " é"],
        "alpha": [[0.6, 0.6], [0.6, 0.61]],
        "maps": [[even, even], [even, even]],
        "mass": 0.25,
        "even": 0.5,
        "strongest": {"layer": 3, "head": 1, "alpha": 0.61},
    }
    return Record("phenomenon", "tiny", {"epsilon": 0.3}, values, {"check": {"layers": [1, 3]}})


def embedded(html: str) -> Any:
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    return json.loads(data)


def test_a_chapters_map_holds_everything_and_its_still_picture(record: Record) -> None:
    shown = figures.head_map(record)
    data = embedded(shown.html)
    assert data["tokens"] == record.values["tokens"], "a token that looks like the end of a script does not end it"
    assert data["maps"] == record.values["maps"]
    assert data["layers"] == [1, 3]
    assert '<div class="head-map-static"><figure' in shown.html
    assert "compact" not in shown.html


def test_a_compact_map_leaves_the_maps_to_files_of_their_own(record: Record) -> None:
    other = replace(record, model="other")
    choices = [Choice(record=of, name=of.model.title(), maps=f"{of.model}.js") for of in (record, other)]
    html = compact(choices, STILL)
    data = embedded(html)
    assert [model["model"] for model in data] == ["Tiny", "Other"]
    assert [model["source"] for model in data] == ["tiny.js", "other.js"]
    assert not [model for model in data if "maps" in model]
    assert html.count(STILL.html) == 1
    maps = maps_script(record).removeprefix("document.currentScript.maps = ").rstrip(";\n")
    assert json.loads(maps) == record.values["maps"]


def test_the_caption_has_its_numbers_from_the_record(record: Record) -> None:
    assert "25%" in caption(record, "Tiny")
    assert "50%" in caption(record, "Tiny")
