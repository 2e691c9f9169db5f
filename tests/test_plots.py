"""Figures: both themes, described, escaped, the same every time, in colours that can be told apart."""

from __future__ import annotations

import base64
import itertools
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup

from firsttoken import plots
from firsttoken.errors import FirstTokenError

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


def test_figure_is_drawn_once_for_each_theme() -> None:
    bundle = plots.figure(draw, ALT)._repr_mimebundle_()
    images = BeautifulSoup(bundle["text/html"], "html.parser").find_all("img")
    assert [image["class"][0] for image in images] == ["only-light", "only-dark"]
    assert {image["alt"] for image in images} == {ALT}
    drawings = [base64.b64decode(image["src"].split(",")[1]).decode() for image in images]
    assert "#222222" in drawings[0]
    assert "#dddddd" in drawings[1]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_figure_is_the_same_every_time() -> None:
    assert plots.figure(draw, ALT) == plots.figure(draw, ALT)


def test_figure_passes_an_array_of_axes() -> None:
    seen = []
    plots.figure(lambda axes: seen.append(axes.shape), ALT, ncols=3)
    assert seen == [(3,), (3,)]


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


def test_table_refuses_a_short_row() -> None:
    with pytest.raises(FirstTokenError, match="2 columns"):
        plots.table([["a"]], ["model", "value"], "Sink rates")


def test_a_model_keeps_its_colour() -> None:
    assert plots.model_color("smollm2-135m") != plots.model_color("gemma3-270m")
    others = {plots.model_color(f"model-{i}") for i in range(50)}
    assert others.isdisjoint({plots.model_color("smollm2-135m"), plots.model_color("gemma3-270m")})
    assert len(others) == len(plots.PALETTE) - 2


@pytest.mark.parametrize("theme", plots.BACKGROUNDS)
@pytest.mark.parametrize("color", [*plots.PALETTE, plots.NEUTRAL])
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


@pytest.mark.parametrize("kind", VISION)
def test_colours_can_be_told_apart(kind: str) -> None:
    seen = [TO_LAB @ np.cbrt(np.clip(TO_LMS @ VISION[kind] @ linear(c), 0, None)) for c in plots.PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.12
