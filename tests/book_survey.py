"""One visit to every page on each kind of screen; the tests of the pages share what is read off there.

>>> readings = survey("phone")          # a fixture, see conftest.py
>>> readings["book/intro.html"]["clipped"]
[]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python

Readings = dict[str, dict[str, Any]]  # page: what was read off it, by the names below
Survey = Callable[[str], Readings]
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
PHONE, TABLET, DESKTOP = 390, 820, 1280

# What is wider than its box and cannot be scrolled there.
CLIPPED = """() => [...document.querySelectorAll(
    ".bd-article table, .bd-article pre, .bd-article math, .bd-article figure, .bd-article img")]
  .filter(e => e.getBoundingClientRect().width)
  .filter(e => {
    for (let box = e; box && !box.matches("article"); box = box.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
    const article = e.closest("article").getBoundingClientRect();
    return e.getBoundingClientRect().right > article.right + 1 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth;
  }).map(e => e.outerHTML.slice(0, 90))"""
# The smallest text of each drawn figure, in pixels of the screen.
SMALLEST = """() => [...document.querySelectorAll("figure.drawn svg")].filter(e => e.getBoundingClientRect().width)
  .map(svg => Math.min(...[...svg.querySelectorAll("text, tspan")].map(
    text => parseFloat(getComputedStyle(text).fontSize) * svg.getScreenCTM().a)))"""
# Figures that are wider than their box, and whether what one sees of them without scrolling is a whole panel.
SCROLLED = """() => [...document.querySelectorAll("figure.drawn .figure-scroll")]
  .filter(e => e.getBoundingClientRect().width && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.querySelector("[role=img]").ariaLabel)"""
# A picture that stands in for a script is there and not seen.
FIGURES = """() => [...document.querySelectorAll("figure.drawn")]
  .filter(e => e.getBoundingClientRect().height && e.checkVisibility({ visibilityProperty: true }))
  .map(e => {
    const caption = e.querySelector("figcaption");
    return { name: e.querySelector("[role=img]")?.ariaLabel ?? "", caption: caption?.innerText.trim() ?? "",
             before: caption ? getComputedStyle(caption, "::before").content : "" };
  })"""
REPEATED = """() => { const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  return ids.filter((id, i) => ids.indexOf(id) !== i); }"""
# The theme's icons are letters of a private alphabet; without its font they are empty boxes.
BOXES = """() => [...document.querySelectorAll("body *")].flatMap((e) => ["::before", "::after"].filter((side) =>
  /[\\ue000-\\uf8ff]/.test(getComputedStyle(e, side).content) && getComputedStyle(e, side).display !== "none")
  .map((side) => `${e.tagName}.${e.className}${side}`))"""
# Outputs that the theme lays on a bright ground in dark mode, because it takes them for pictures made for white paper.
BRIGHT = """() => [...document.querySelectorAll(".cell_output .output")]
  .filter(e => e.getBoundingClientRect().height && getComputedStyle(e).backgroundColor !== "rgba(0, 0, 0, 0)")
  .map(e => [getComputedStyle(e).backgroundColor, e.innerText.trim().slice(0, 60)])"""
# What overflows to the left of a box cannot be scrolled to.
LOST = """() => [...document.querySelectorAll("div.math > math")].filter((e) =>
  e.getBoundingClientRect().left < e.parentElement.getBoundingClientRect().left - 1).length"""
WIDTH = "document.documentElement.scrollWidth"

DRAWN = {"width": WIDTH, "clipped": CLIPPED, "smallest": SMALLEST, "scrolled": SCROLLED}
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"width": DESKTOP, "color_scheme": "light"},
    "dark": {"width": DESKTOP, "color_scheme": "dark"},
    "phone": {"width": PHONE, "color_scheme": "light"},
}
READ = {
    "desktop": {**DRAWN, "figures": FIGURES, "repeated": REPEATED, "boxes": BOXES},
    "dark": {"bright": BRIGHT},
    "phone": {**DRAWN, "lost": LOST},
}
# Every rule of accessibility in one theme; in the other those that colours can break, since nothing else differs.
RULES: dict[str, list[str]] = {"desktop": [], "dark": ["color-contrast", "link-in-text-block"]}


def faults(page: Any, rules: list[str]) -> list[list[str]]:
    """What is not accessible: rule, element and what to do, of the first two elements for each rule."""
    # Preloading resolves the imports of style sheets against the page and asks for files that do not exist.
    options = {"preload": False, "resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    page.add_script_tag(path=str(AXE))
    return [
        [fault["id"], node["html"][:160], node["failureSummary"][:200]]
        for fault in page.evaluate("(options) => axe.run(options)", options)["violations"]
        for node in fault["nodes"][:2]
    ]


def survey_of(screen: str, window: Any, pages: list[str]) -> Readings:
    """Open every page in a window of that screen and read off what its tests ask for."""
    devtools = window.page.context.new_cdp_session(window.page)
    sizes: list[float] = []
    devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    devtools.send("Network.enable")
    read: Readings = {}
    for path in pages:
        sizes.clear()
        page = window.open(path)
        of_page: dict[str, Any] = {"bytes": int(sum(sizes))}
        page.wait_for_timeout(300)  # what a script does late
        of_page |= {name: page.evaluate(script) for name, script in READ[screen].items()}
        if screen == "phone":
            page.set_viewport_size({"width": TABLET, "height": 900})
            of_page["width of a tablet"] = page.evaluate(WIDTH)
            page.set_viewport_size({"width": PHONE, "height": 900})
        if screen in RULES:
            of_page["faults"] = faults(page, RULES[screen])
        of_page["wrong"] = list(window.wrong)
        window.wrong.clear()
        read[path] = of_page
    return read
