"""Figures: both themes, described, escaped, the same every time, in colours that can be told apart."""

from __future__ import annotations

import ast
import base64
import itertools
import json
import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup

from drawn import drawing
from firsttoken import panels, plots
from firsttoken.claims.phenomenon import figures as phenomenon
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.files import ROOT
from firsttoken.model_names import short_name
from firsttoken.records import Record, find

ALT = 'Mass of "head" <3> & layer 2'


def draw(ax: object) -> None:
    ax.plot([0, 1, 2], [0.1, 0.4, 0.2], label="a")  # type: ignore[attr-defined]
    ax.legend()  # type: ignore[attr-defined]


def channels(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def linear(color: str) -> np.ndarray:
    value = channels(color)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    high, low = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_figure_is_stored_once_and_takes_the_colours_of_the_page() -> None:
    display = plots.figure(draw, ALT)
    bundle = display._repr_mimebundle_()
    svg = str(drawing(display))
    assert svg.count("<svg") == 2, "the panel and the sign of its legend"
    assert "currentColor" in svg
    assert "var(--figure-grid" in svg
    assert not {color.lower() for color in re.findall(r"#[0-9a-fA-F]{6}\b", svg)} - set(plots.CATEGORIES)
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_figure_has_a_name_a_caption_and_text_that_is_text() -> None:
    display = plots.figure(draw, ALT, "What it says")
    svg = drawing(display)
    assert svg["aria-label"] == ALT
    assert "1.00" in [text.get_text(strip=True) for text in svg.find_all("text")]
    assert svg.find_all("span")[-1].get_text() == "a", "the legend is text of the page"
    assert BeautifulSoup(display.html, "html.parser").figcaption.text == "What it says."  # type: ignore[union-attr]
    assert BeautifulSoup(plots.figure(draw, ALT).html, "html.parser").figcaption.text == f"{ALT}."  # type: ignore[union-attr]


def test_ids_of_two_figures_differ_and_every_reference_has_its_target() -> None:
    def clipped(ax: Any) -> None:
        ax.plot([0, 1], [0, 1], marker="o")
        ax.scatter([0.2, 0.4], [0.3, 0.1], marker="D")

    ids = []
    for alt in ("one", "another"):
        svg = drawing(plots.figure(clipped, alt))
        own = {tag["id"] for tag in svg.find_all(id=True)}
        asked = set(re.findall(r'(?:href="#|url\(#)([^")]+)', str(svg)))
        assert asked
        assert asked == own
        ids.append(own)
    assert ids[0].isdisjoint(ids[1])


def test_rounding_moves_nothing_that_can_be_seen_and_leaves_text_alone() -> None:
    svg = drawing(plots.figure(lambda ax: ax.text(0.5, 0.5, "0.123456"), ALT))
    assert "0.123456" in svg.get_text()
    assert not re.search(r"\d\.\d{3,}", " ".join(tag["d"] for tag in svg.find_all("path", d=True)))


def test_smallest_text_is_readable_on_every_screen() -> None:
    svg = drawing(plots.figure(lambda ax: ax.set_title("small", fontsize=6), ALT, figsize=(5, 3))).svg
    assert svg is not None
    width = float(svg["viewbox"].split()[2])
    least = float(re.search(r"min-width:(\d+)px", svg["style"])[1])  # type: ignore[index]
    assert 6 * least / width >= 8.9


def test_cells_of_a_heat_map_are_said_and_escaped() -> None:
    cells = plots.Cells(x="key", y="query", value="mass", columns=["</script>"], rows=[1], texts=[["5 %"]])
    html = plots.figure(lambda ax: ax.imshow([[1.0]]), ALT, cells=[cells]).html
    said = json.loads(BeautifulSoup(html, "html.parser").find("script").string)  # type: ignore[union-attr,arg-type]
    assert said[0]["columns"] == ["</script>"]
    assert said[0]["texts"] == [["5 %"]]


def test_figure_is_the_same_every_time() -> None:
    assert plots.figure(draw, ALT) == plots.figure(draw, ALT)


def test_figure_passes_an_array_of_axes() -> None:
    seen = []
    plots.figure(lambda axes: seen.append(axes.shape), ALT, ncols=3)
    assert seen == [(3,)]


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_description_is_required(alt: str) -> None:
    with pytest.raises(FirstTokenError, match="description"):
        plots.figure(draw, alt)
    with pytest.raises(FirstTokenError, match="description"):
        plots.interactive(go.Figure(), alt)


def test_interactive_holds_its_specification_and_no_address() -> None:
    fig = go.Figure(go.Scatter(y=np.arange(3.0), name="</script><b>"))
    bundle = plots.interactive(fig, ALT, height=300)._repr_mimebundle_()
    html = bundle["text/html"]
    assert not re.search(r"https?://", html)
    element = BeautifulSoup(html, "html.parser").find(class_="plotly-lazy")
    assert element["aria-label"] == ALT
    assert element.find("p").text == ALT
    spec = json.loads(element.find("script").string)
    assert spec["data"][0]["name"] == "</script><b>"
    assert spec["layout"]["height"] == 300
    assert "template" not in spec["layout"]
    assert bundle["application/vnd.plotly.v1+json"] == spec


def test_table_escapes_and_names_its_parts() -> None:
    html = plots.table([["<i>a</i>", "−3.1 %"], ["b", "text"]], ["model", "x & y"], "Sink <rates>").html
    soup = BeautifulSoup(html, "html.parser")
    assert soup.find("i") is None
    assert soup.caption.text == "Sink <rates>"
    assert [cell.text for cell in soup.find_all("th", scope="row")] == ["<i>a</i>", "b"]
    assert [cell.text for cell in soup.find_all("td", class_="number")] == ["−3.1 %"]
    assert soup.find(role="region")["tabindex"] == "0"


@pytest.mark.parametrize(("rows", "folds", "folded"), [(12, True, False), (13, True, True), (13, False, False)])
def test_a_long_table_is_opened_by_its_caption(rows: int, folds: bool, folded: bool) -> None:
    html = plots.table([[f"model {n}", n] for n in range(rows)], ["model", "rate"], "Sink <rates>", folds=folds).html
    soup = BeautifulSoup(html, "html.parser")
    assert bool(soup.select("details > .table-scroll table")) is folded
    assert len(soup.select("tbody tr")) == rows
    assert soup.table is not None
    assert soup.table["aria-label"] == "Sink <rates>"
    named = soup.summary if folded else soup.caption
    assert named is not None
    assert named.text == ("Sink <rates> (13 rows)" if folded else "Sink <rates>")
    assert bool(soup.caption) is not folded, "the caption stands once"


def test_table_refuses_a_short_row() -> None:
    with pytest.raises(FirstTokenError, match="2 columns"):
        plots.table([["a"]], ["model", "value"], "Sink rates")


def test_a_model_keeps_its_colour() -> None:
    assert plots.model_color("smollm2-135m") != plots.model_color("gemma3-270m")
    others = {plots.model_color(f"model-{i}") for i in range(50)}
    assert others.isdisjoint({plots.model_color("smollm2-135m"), plots.model_color("gemma3-270m")})
    assert len(others) == len(plots.MODELS) - 2
    assert others.isdisjoint(plots.CATEGORIES)


def test_figures_colour_models_by_name_and_all_else_by_category() -> None:
    """The only way to a model's colour is `model_color`; no figure types a colour or reaches into the list."""
    sources = [*(ROOT / "src/firsttoken/claims").glob("*/*figures.py"), ROOT / "src/firsttoken/panels.py"]
    assert len(sources) > 15
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"\bMODELS\b|#[0-9a-fA-F]{6}\b|color=\"C\d", text), source


def test_every_figure_says_what_to_take_away() -> None:
    """A caption of its own, and not the words for those who cannot see the figure."""
    sources = [*(ROOT / "src/firsttoken/claims").glob("*/*figures.py"), ROOT / "src/firsttoken/pretraining/curves.py"]
    calls = [
        (source, call)
        for source in sources
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "figure"
    ]
    assert len(calls) > 40
    for source, call in calls:
        given = [*call.args[1:3], *(word.value for word in call.keywords if word.arg == "caption")]
        place = f"{source}, line {call.lineno}"
        assert len(given) == 2, f"{place}: a figure without a caption"
        assert ast.dump(given[0]) != ast.dump(given[1]), f"{place}: a caption that is the description"


def test_every_figure_calls_a_model_by_its_short_name() -> None:
    for slug in ("smollm2-135m", "gemma3-270m"):
        record = find("phenomenon", slug)
        assert record
        html = phenomenon.mass_and_rate([record]).html
        assert short_name(slug) in html
        assert slug not in html


def test_a_figure_that_is_not_by_model_uses_no_colour_of_a_model() -> None:
    def many(ax: Any) -> None:
        for step in range(8):
            ax.plot([0, 1], [step, step])

    svg = str(drawing(plots.figure(many, ALT)))
    assert not [color for color in plots.MODELS if color in svg]


def test_seaborn_draws_the_estimates_and_not_its_own_statistics() -> None:
    """Lines and bands pass through the stored value, low and high, which no resampling would give."""
    stored = [Estimate(value, value - 0.1, value + 0.3, 5) for value in (0.2, 0.5, 0.4)]
    values = {"by_layer": {"mass": [vars(estimate) for estimate in stored]}}
    record = Record("phenomenon", "gemma3-270m", {}, values, {})
    _, ax = plt.subplots()
    panels.lines_by_model(ax, [record], "by_layer.mass", [1, 2, 4])
    line = next(line for line in ax.lines if len(line.get_xdata()))
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 4])
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.5, 0.4])
    assert line.get_color() == plots.model_color("gemma3-270m")
    corners = ax.collections[0].get_paths()[0].vertices
    for x, estimate in zip((1, 2, 4), stored, strict=True):
        at = corners[corners[:, 0] == x, 1]
        assert (at.min(), at.max()) == pytest.approx((estimate.low, estimate.high))
    plt.close()


@pytest.mark.parametrize("models", [["gemma3-270m"], ["smollm2-135m", "gemma3-270m", "some-other-model"]])
def test_points_stand_at_the_stored_values_of_one_model_or_of_many(models: list[str]) -> None:
    records = [
        Record("sink_rates", model, {}, {"always": {"mass": vars(Estimate(0.2 + n / 10, 0.1, 0.9, 5))}}, {})
        for n, model in enumerate(models)
    ]
    _, ax = plt.subplots()
    panels.points_by_model(ax, records, {"always.mass": "with BOS"}, legend=True)
    drawn = sorted(float(x) for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata())
    assert drawn == pytest.approx([0.2 + n / 10 for n in range(len(models))])
    plt.close()


@pytest.mark.parametrize("theme", plots.BACKGROUNDS)
@pytest.mark.parametrize("color", [*plots.MODELS, *plots.CATEGORIES, plots.NEUTRAL])
def test_colours_are_visible_on_both_backgrounds(color: str, theme: str) -> None:
    assert contrast(color, plots.BACKGROUNDS[theme]) >= 3


# Viénot, Brettel and Mollon (1999): what remains of a linear RGB colour without long- or medium-wave cones.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array([[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.004, -0.004, 1.0]]),
    "deuteranopia": np.array([[0.2929, 0.7071, 0.0], [0.2929, 0.7071, 0.0], [-0.0223, 0.0223, 1.0]]),
}
# Oklab: distances in it are about as large as the differences one sees.
TO_LMS = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]])
TO_LAB = np.array([[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])


ALL = [*plots.MODELS, *plots.CATEGORIES]


@pytest.mark.parametrize("kind", VISION)
def test_colours_can_be_told_apart(kind: str) -> None:
    seen = [TO_LAB @ np.cbrt(np.clip(TO_LMS @ VISION[kind] @ linear(c), 0, None)) for c in ALL]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.08
    bundled = [seen[ALL.index(plots.model_color(slug))] for slug in ("smollm2-135m", "gemma3-270m")]
    kinds = [seen[ALL.index(color)] for color in plots.CATEGORIES]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations([*bundled, *kinds], 2)) > 0.1
