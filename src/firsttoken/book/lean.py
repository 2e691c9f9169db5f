"""What a built page asks for, made light: icons as a small style sheet, no style and no script that it cannot use.

The theme sends every reader a script of 1.5 MB with all icons that there are, a style sheet of which a book uses a
tenth, and the index of the search on pages without a search. This is done to the files of a finished build.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from firsttoken.book import first_paint
from firsttoken.errors import FirstTokenError

_ICON_SCRIPT = "_static/scripts/fontawesome.js"
_ICON_PREFIXES = "fas|far|fab|fa-solid|fa-regular|fa-brands"
_OPTIONS = "_static/documentation_options.js"
_SEARCH_ONLY = ("searchtools.js", "language_data.js", "searchindex.js")
_MODIFIERS = {"fa-lg", "fa-solid", "fa-regular", "fa-brands", "fa-fw"}


def slim(html: Path) -> None:
    """Rewrite the pages, the style sheets and the icons of the built book in the folder `html`."""
    pages = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    scripts = [path for path in html.glob("_static/**/*.js") if path.name != Path(_ICON_SCRIPT).name]
    contents = {path: path.read_text(encoding="utf-8") for path in (*pages, *scripts)}
    if (catalogue := html / _ICON_SCRIPT).exists():
        styles = icon_styles(icons_used("\n".join(contents.values())), catalogue.read_text(encoding="utf-8"))
        (html / first_paint.ICONS).write_text(styles, encoding="utf-8")
    options = (html / _OPTIONS).read_text(encoding="utf-8") if pages else ""
    for page in pages:
        light = light_page(contents[page], page.relative_to(html).as_posix())
        page.write_text(first_paint.light_head(light, options), encoding="utf-8")
    first_paint.merge_sheets(html, pages)
    for dropped in (
        *html.glob("_static/**/*.map"),
        html / _ICON_SCRIPT,
        *html.glob("_static/vendor/fontawesome/**/*.*"),
    ):
        if dropped.is_file():
            dropped.unlink()


def light_page(page: str, path: str) -> str:
    """A page that asks for the small sheet of icons, and for the search only if it is the page of the search."""
    page = re.sub(
        rf'<script[^>]*src="([^"]*){_ICON_SCRIPT}[^"]*"></script>',
        rf'<link rel="stylesheet" href="\1{first_paint.ICONS}" />',
        page,
    )
    if path != "search.html":
        for name in _SEARCH_ONLY:
            page = re.sub(rf'<script[^>]*src="[^"]*{re.escape(name)}[^"]*"></script>\n?', "", page)
    return page


# -- icons ----------------------------------------------------------------------------------------------------


def icons_used(text: str) -> set[str]:
    """The names of icons, without `fa-`, that pages and scripts ask for."""
    classes = re.findall(rf'["\'][^"\'<>]*\b(?:{_ICON_PREFIXES})\b[^"\'<>]*["\']', text)
    names = {name for said in classes for name in re.findall(r"\bfa-[a-z][a-z0-9-]*", said)}
    return {name.removeprefix("fa-") for name in names - _MODIFIERS}


def icon_styles(names: set[str], catalogue: str) -> str:
    """A style sheet that draws each icon in the colour of the text around it.

    Args:
        catalogue: the text of Font Awesome's script, which holds the outline of every icon.

    Raises `FirstTokenError` for a name that the catalogue does not have.
    """
    # Sets in the order of the script; the solid one is known by an icon that only it has.
    sets = [icons for icons in re.findall(r"\{[^{}]*\}", catalogue) if re.search(r'"M[\d.]', icons)]
    sets.sort(key=lambda icons: '"circle-half-stroke":' not in icons)
    rules = [
        ":is(.fa-solid, .fa-regular, .fa-brands, .fas, .far, .fab) { display: inline-block; width: 1em; height: 1em; "
        "vertical-align: -.125em; background: currentColor; -webkit-mask: var(--icon) center / contain no-repeat; "
        "mask: var(--icon) center / contain no-repeat; }",
    ]
    for name in sorted(names):
        entry = rf'[{{,]"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"[^"]*",\s*"([^"]+)"'
        outline = next((match for icons in sets if (match := re.search(entry, icons))), None)
        if outline is None:
            raise FirstTokenError(f"The theme has no icon called '{name}'; name another in the page that uses it.")
        width, height, path = outline.groups()
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><path d="{path}"/></svg>'
        rules.append(f'.fa-{name} {{ --icon: url("data:image/svg+xml,{quote(svg, safe=" =:/,")}"); }}')
    return "\n".join(rules) + "\n"
