"""Style sheets read as text: which rules can apply to given names, and which properties nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_OF_ICONS = re.compile(r"(?:\.fa[\w-]*)+(?::{1,2}[\w-]+)?")  # rules of the theme that `icon_styles` replaces
_GROUPS = ("@media", "@supports", "@layer", "@container")


def used_rules(css: str, words: frozenset[str], without: frozenset[str] | None = None) -> str:
    """A style sheet without the rules for classes and ids that no page and no script names.

    Args:
        words: every class and id that elements have, at once or while a page is read.
        without: leave out what can apply with these words already, and every rule that has no selector.
    """
    kept = []
    for head, body in _statements(re.sub(r"/\*.*?\*/", "", css, flags=re.S)):
        name = head.strip()
        if body is not None and name.startswith(_GROUPS):
            if inner := used_rules(body, words, without):
                kept.append(f"{name}{{{inner}}}")
        elif body is None or name.startswith("@"):
            if without is None and not _of_icon_fonts(name, body or ""):
                kept.append(f"{name};" if body is None else f"{name}{{{body.strip()}}}")
        elif "FontAwesome" not in body:
            selectors = [selector.strip() for selector in _split(name) if _can_match(selector, words)]
            selectors = [selector for selector in selectors if not _OF_ICONS.fullmatch(selector)]
            if without is not None:
                selectors = [selector for selector in selectors if not _can_match(selector, without)]
            if selectors:
                declarations = re.sub(r"\s+", " ", body).strip()
                kept.append(f"{','.join(selectors)}{{{declarations}}}")
    return "".join(kept)


def _of_icon_fonts(name: str, body: str) -> bool:
    return (name.startswith("@font-face") and "Font Awesome" in body) or "FontAwesome" in body


_DECLARED = re.compile(r"""(?<=[{;])\s*(--[\w-]+)\s*:(?:[^;{}"']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*(?:;|(?=\}))""")


def used_properties(css: str, others: Iterable[str]) -> str:
    """A style sheet without the custom properties (`--name`) that neither it nor any of the other texts reads."""
    named = {name for text in others for name in re.findall(r"--[A-Za-z][\w-]*", text)}
    while True:
        # A property may be read only by one that nothing reads.
        less = _without_unread(css, named | set(re.findall(r"var\(\s*(--[\w-]+)", css)))
        if less == css:
            return css
        css = less


def _without_unread(css: str, read: set[str]) -> str:
    return _DECLARED.sub(lambda of: of[0] if of[1] in read else "", css)


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
