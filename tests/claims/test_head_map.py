"""What the live map of heads is given: the record's own numbers, in a page or in a file of their own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from firsttoken.claims.phenomenon import figures
from firsttoken.claims.phenomenon.head_map import Choice, Seen, caption, compact, maps_script, read
from firsttoken.measures.attention_maps import pack
from firsttoken.plots import Display
from firsttoken.records import Record, find

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
        "sink_rate": 0.75,
        "even": 0.5,
        "strongest": {"layer": 3, "head": 1, "alpha": 0.61},
    }
    return Record("phenomenon", "tiny", {"epsilon": 0.3}, values, {"check": {"layers": [1, 3]}})


def embedded(html: str) -> Any:
    (told,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    return json.loads(told)


def test_a_chapters_map_holds_everything_and_its_still_picture(record: Record) -> None:
    shown = figures.head_map(record)
    told = embedded(shown.html)
    (seen,) = told["passages"]
    assert seen["tokens"] == record.values["tokens"], "a token that looks like the end of a script does not end it"
    assert seen["maps"] == record.values["maps"]
    assert told["layers"] == [1, 3]
    assert '<div class="head-map-static"><figure' in shown.html
    assert "compact" not in shown.html


@pytest.fixture
def others(record: Record) -> Record:
    further = [{**record.values, "title": title, "mass": mass} for title, mass in (("code", 0.3), ("French", 0.4))]
    return replace(record, variant="passages", values={"passages": further})


def test_a_compact_map_leaves_the_maps_to_files_of_their_own(record: Record, others: Record) -> None:
    choices = [
        Choice(
            name=name,
            layers=[1, 3],
            passages=[
                Seen(title=title, values=values, maps=f"{name}-{number}.js")
                for number, (title, values) in enumerate(read(record, others))
            ],
        )
        for name in ("Tiny", "Other")
    ]
    html = compact(choices, STILL)
    told = embedded(html)
    assert [model["model"] for model in told] == ["Tiny", "Other"]
    assert [[seen["title"] for seen in model["passages"]] for model in told] == [["a story", "code", "French"]] * 2
    assert [seen["source"] for seen in told[1]["passages"]] == [f"Other-{number}.js" for number in range(3)]
    assert [("25%" in one["caption"], "40%" in one["caption"]) for one in told[0]["passages"][::2]] == [
        (True, False),
        (False, True),
    ]
    assert not [seen for model in told for seen in model["passages"] if "maps" in seen]
    assert html.count(STILL.html) == 1
    maps = maps_script(record.values).removeprefix("document.currentScript.maps = ").rstrip(";\n")
    assert json.loads(maps) == record.values["maps"]


def test_without_further_passages_there_is_one(record: Record) -> None:
    assert [title for title, _ in read(record, None)] == ["a story"]


def test_passages_are_compared_head_by_head(record: Record, others: Record) -> None:
    opposite = [[0.61, 0.6], [0.6, 0.6]]
    changed = [{**values, "alpha": opposite} for values in others.values["passages"][:1]]
    shown = figures.by_passage([record], [replace(others, values={"passages": changed})])
    expected = np.corrcoef(np.ravel(record.values["alpha"]), np.ravel(opposite))[0, 1]
    assert f"{expected:.2f}" in shown.text
    assert figures.by_passage([record], []).text.count("a story") == 1


def test_the_caption_has_its_numbers_from_the_record(record: Record) -> None:
    assert "25%" in caption(record.values, "Tiny")
    assert "50%" in caption(record.values, "Tiny")


@pytest.mark.parametrize("slug", ["smollm2-135m", "gemma3-270m", "qwen2-5-coder-0-5b"])
def test_the_head_that_reads_is_none_that_rests(slug: str) -> None:
    measured = find("phenomenon", slug)
    assert measured
    row, head, most = figures.reader(measured)
    assert measured.values["alpha"][row][head] <= measured.parameters["epsilon"]
    assert 0 < most < 1
