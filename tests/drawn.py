"""What a figure draws, as elements of a page."""

from __future__ import annotations

from bs4 import BeautifulSoup, Tag

from firsttoken.plots import Display


def drawing(display: Display) -> Tag:
    drawn = BeautifulSoup(display.html, "html.parser").find(role="img")
    assert isinstance(drawn, Tag)
    return drawn
