"""What a built page asks for, made light: icons as a small style sheet, no style and no script that it cannot use.

The theme sends every reader a script of 1.5 MB with all icons that there are, a style sheet of which a book uses a
tenth, and the index of the search on pages without a search. This is done to the files of a finished build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from firsttoken.errors import FirstTokenError

_ICON_SCRIPT = "_static/scripts/fontawesome.js"
_ICON_STYLES = "_static/icons.css"
_ICON_PREFIXES = "fas|far|fab|fa-solid|fa-regular|fa-brands"
_SEARCH_ONLY = ("searchtools.js", "language_data.js", "searchindex.js")
_MODIFIERS = {"fa-lg", "fa-solid", "fa-regular", "fa-brands", "fa-fw"}


def slim(html: Path) -> None:
    """Rewrite the pages, the style sheets and the icons of the built book in the folder `html`."""
    pages = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    scripts = [path for path in html.glob("_static/**/*.js") if path.name != Path(_ICON_SCRIPT).name]
    texts = {path: path.read_text(encoding="utf-8") for path in (*pages, *scripts)}
    said = "\n".join(texts.values())
    if (catalogue := html / _ICON_SCRIPT).exists():
        styles = icon_styles(icons_used(said), catalogue.read_text(encoding="utf-8"))
        (html / _ICON_STYLES).write_text(styles, encoding="utf-8")
    for page in pages:
        page.write_text(light_page(texts[page], page.relative_to(html).as_posix()), encoding="utf-8")
    words = frozenset(re.findall(r"[\w-]+", said))
    for sheet in html.glob("_static/**/*.css"):
        if "vendor" not in sheet.relative_to(html).parts and sheet != html / _ICON_STYLES:
            sheet.write_text(used_rules(sheet.read_text(encoding="utf-8"), words), encoding="utf-8")
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
        rf'<link rel="stylesheet" href="\1{_ICON_STYLES}" />',
        page,
    )
    if path != "search.html":
        for name in _SEARCH_ONLY:
            page = re.sub(rf'<script[^>]*src="[^"]*{re.escape(name)}[^"]*"></script>\n?', "", page)
        # Scripts of the head wait until the page is there; their order stays. Inline ones need the options at once.
        page = re.sub(
            r'<script src="(?![^"]*documentation_options)([^"]*_static/)', r'<script defer="defer" src="\1', page
        )
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


# -- style sheets ---------------------------------------------------------------------------------------------

_OF_ICONS = re.compile(r"(?:\.fa[\w-]*)+(?::{1,2}[\w-]+)?")  # rules of the theme that `icon_styles` replaces
_GROUPS = ("@media", "@supports", "@layer", "@container")


def used_rules(css: str, words: frozenset[str]) -> str:
    """A style sheet without the rules for classes and ids that no page and no script names.

    Args:
        words: every word of the pages and of the scripts, which add classes while a page is read.
    """
    kept = []
    for head, body in _statements(re.sub(r"/\*.*?\*/", "", css, flags=re.S)):
        name = head.strip()
        if body is None:
            kept.append(f"{name};")
        elif name.startswith(_GROUPS):
            if inner := used_rules(body, words):
                kept.append(f"{name}{{{inner}}}")
        elif (name.startswith("@font-face") and "Font Awesome" in body) or "FontAwesome" in body:
            continue
        elif name.startswith("@"):
            kept.append(f"{name}{{{body.strip()}}}")
        else:
            selectors = [selector.strip() for selector in _split(name) if _can_match(selector, words)]
            selectors = [selector for selector in selectors if not _OF_ICONS.fullmatch(selector)]
            if selectors:
                declarations = re.sub(r"\s+", " ", body).strip()
                kept.append(f"{','.join(selectors)}{{{declarations}}}")
    return "".join(kept)


def _can_match(selector: str, words: frozenset[str]) -> bool:
    plain = re.sub(r"\[[^\]]*\]|:(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)", "", selector)
    return all(name.replace("\\", "") in words for name in re.findall(r"[.#]((?:[\w-]|\\.)+)", plain))


def _split(selectors: str) -> list[str]:
    """Selectors of a list, split at the commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in selectors:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _statements(css: str) -> Iterator[tuple[str, str | None]]:
    """Head and body of each statement; the body of one that ends with a semicolon is None."""
    quoted = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
    tokens = re.compile(rf"url\((?:{quoted}|[^)'\"]*)\)|{quoted}|[{{}};]", re.S)
    start, depth, head = 0, 0, ""
    for token in tokens.finditer(css):
        mark = token[0]
        if mark == "{":
            depth += 1
            if depth == 1:
                head, start = css[start : token.start()], token.end()
        elif mark == "}":
            depth -= 1
            if depth == 0:
                yield head, css[start : token.start()]
                start = token.end()
        elif mark == ";" and depth == 0:
            yield css[start : token.start()], None
            start = token.end()
