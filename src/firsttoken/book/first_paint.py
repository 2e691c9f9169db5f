"""What a browser must have before it can draw a built page, made small: one style sheet, and no script.

A page of the theme asks for a dozen style sheets and waits for all of them. Here they become two, in their order: one
with the rules that can apply to the page as it arrives, asked for in its head, and one with the rules for what only
scripts add (menus that open, tooltips, buttons), asked for at its end. Scripts wait for the page, and none of them is
asked for before what is drawn. The theme's colours are chosen at once and not by a script that comes later, so that a
dark page is never white first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from firsttoken.book.styles import used_properties, used_rules

FOLDER = "_static/styles"  # of the merged sheets
ICONS = "_static/icons.css"  # its rules are all used, and replace those of the theme
_SHEET = re.compile(r'[ \t]*<link\b[^>]*\brel="stylesheet"[^>]*/?>\n?')
_ADDRESS = re.compile(r'\b(?:href|src)="((?:\.\./)*)([^"?]*)[^"]*"')
_URL = re.compile(r"""url\(\s*(["']?)(?!data:|https?:|//|/|#)([^"')]+)\1\s*\)""")
_IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"')]+)["']?\)?\s*;""")
_INLINE = re.compile(r"<script(?![^>]*\b(?:src|type)=)[^>]*>(.*?)</script>", re.S)
_CHARSET = re.compile(r"""@charset\s+["'][^"']*["'];""")
_SCRIPT_FILE = re.compile(r"<script\b[^>]*\bsrc=[^>]*></script>\n?")
_OPTIONS = re.compile(r'<script src="[^"]*documentation_options\.js[^"]*"></script>')
_THEME = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
_THEME_AT_ONCE = (
    "{ const { dataset } = document.documentElement; dataset.theme = (dataset.mode !== 'auto' && "
    "localStorage.getItem('theme')) || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'); }"
)


def merge_sheets(html: Path, pages: Sequence[Path]) -> None:
    """Give each page two style sheets in place of those that it asks for, and delete what no page asks for any more.

    Args:
        html: the folder of the book.
        pages: those that are read; a page that has been treated stays as it is.
    """
    contents = {page: page.read_text(encoding="utf-8") for page in pages}
    scripts = [path.read_text(encoding="utf-8") for path in html.glob("_static/**/*.js")]
    scripts += [script for text in contents.values() for script in _INLINE.findall(text)]
    arriving = frozenset(name for text in contents.values() for name in names(text))
    added = frozenset(re.findall(r"[\w-]+", "\n".join(scripts)))
    others = [*contents.values(), *scripts]
    merged: dict[tuple[str, ...], tuple[str, str]] = {}
    for page, text in contents.items():
        asked = sheets(text)
        if not asked or asked[0].startswith(f"{FOLDER}/first-"):
            continue
        if asked not in merged:
            merged[asked] = _write(html, asked, arriving, added, others)
        up = "../" * len(page.relative_to(html).parts[1:])
        page.write_text(with_sheets(text, *(up + name for name in merged[asked])), encoding="utf-8")
    for name in {name for asked in merged for name in (*asked, *_imported(html, asked))}:
        (html / name).unlink(missing_ok=True)


def light_head(page: str, options: str) -> str:
    """A page whose head asks for no script: they come at its end, in their order, and run when the page is there.

    Args:
        options: the text of Sphinx's `documentation_options.js`, which the page's own scripts read.
    """
    page = re.sub(r'[ \t]*<link rel="preload" as="script"[^>]*>\n?', "", page)
    page = _OPTIONS.sub(lambda _: f"<script>{options}</script>", page)
    head, end, body = page.partition("</head>")
    waiting = _SCRIPT_FILE.findall(head)
    page = _SCRIPT_FILE.sub("", head) + end + body
    if waiting:
        before, mark, after = _end(page)
        page = f"{before}{''.join(map(_deferred, waiting))}{mark}{after}"
    page = re.sub(r'(<html\b[^>]*\bdata-theme=")auto"', r'\1light"', page)
    return page.replace(_THEME, _THEME_AT_ONCE)


def _deferred(script: str) -> str:
    return script if " defer" in script else script.replace("<script", '<script defer="defer"', 1)


def _end(page: str) -> tuple[str, str, str]:
    """A page cut where its body has been said and only scripts follow."""
    before, mark, after = page.partition("<!-- Scripts loaded after <body>")
    return (before, mark, after) if mark else page.rpartition("</body>")


# -- style sheets ---------------------------------------------------------------------------------------------


def sheets(page: str) -> tuple[str, ...]:
    """The style sheets that a page asks for, in order, from the folder of the book."""
    links = (_ADDRESS.search(link) for link in _SHEET.findall(page))
    return tuple(address[2] for address in links if address)


def with_sheets(page: str, first: str, later: str) -> str:
    """A page that asks for one sheet where it asked for the first of its own, and for another at its end."""
    start = page.index(_SHEET.search(page)[0])  # type: ignore[index]
    page = _SHEET.sub("", page)
    page = f'{page[:start]}<link rel="stylesheet" href="{first}" />\n{page[start:]}'
    before, mark, after = _end(page)
    return f'{before}<link rel="stylesheet" href="{later}" />\n{mark}{after}'


def whole(html: Path, name: str) -> str:
    """The text of a sheet after what it imports, which stands at its beginning; addresses as seen from `FOLDER`."""
    css, here = _CHARSET.sub("", (html / name).read_text(encoding="utf-8")), dirname(name)
    imported = "".join(whole(html, normpath(join(here, other))) for other in _IMPORT.findall(css))
    return imported + _URL.sub(
        lambda of: f'url("{relpath(normpath(join(here, of[2])), FOLDER)}")', _IMPORT.sub("", css)
    )


def _imported(html: Path, asked: Sequence[str]) -> set[str]:
    return {
        normpath(join(dirname(name), other))
        for name in asked
        for other in _IMPORT.findall((html / name).read_text(encoding="utf-8"))
    }


def _write(
    html: Path, asked: Sequence[str], arriving: frozenset[str], added: frozenset[str], others: Sequence[str]
) -> tuple[str, str]:
    """Write the two sheets that stand for those asked for; their addresses from the folder of the book."""
    icons = "".join(whole(html, name) for name in asked if name == ICONS)
    css = used_rules("\n".join(whole(html, name) for name in asked if name != ICONS), arriving | added)
    css = used_properties(css, others)
    (html / FOLDER).mkdir(exist_ok=True)
    written = []
    for name, text in (
        ("first", used_rules(css, arriving) + icons),
        ("later", used_rules(css, arriving | added, without=arriving)),
    ):
        file = f"{FOLDER}/{name}-{sha256(text.encode()).hexdigest()[:8]}.css"
        (html / file).write_text(text, encoding="utf-8")
        written.append(file)
    return written[0], written[1]


def names(page: str) -> set[str]:
    """The classes and ids of a page as it arrives."""
    said = re.findall(r"""\b(?:class|id)\s*=\s*(["'])(.*?)\1""", page, re.S)
    return {name for _, values in said for name in values.split()}
