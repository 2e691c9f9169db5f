"""The texts that models are probed with: passages written for this project, a long document, or the reader's own.

The passages live in `data/passages/<domain>.txt`; a line `=== name` begins each. Change one and every record made with
them is measured again, because records carry `texts_hash` (`measures.measurement`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path

from firsttoken.errors import FirstTokenError
from firsttoken.files import shorten, typed_path
from firsttoken.texts import hub
from firsttoken.texts.reading import read_text

_HEADER = re.compile(r"^=== ([a-z0-9-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """One probe text. `language` is an ISO 639-1 code."""

    name: str
    domain: str
    language: str
    text: str


@cache
def passages(language: str | None = "en") -> tuple[Passage, ...]:
    """The project's own passages, at least 128 tokens each in both bundled tokenizers; all of them are new texts.

    The domains are interleaved, so that the first n passages are varied for any n.

    Args:
        language: an ISO 639-1 code, or `None` for every language.
    """
    by_domain: list[list[Passage]] = []
    folder = resources.files("firsttoken.texts") / "data" / "passages"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".txt"):
            domain = file.name.removesuffix(".txt")
            _, *parts = _HEADER.split(file.read_text(encoding="utf-8"))
            by_domain.append(
                [
                    Passage(name, domain, name[:2] if domain == "languages" else "en", text.strip())
                    for name, text in zip(parts[::2], parts[1::2], strict=True)
                ]
            )
    rounds = range(max(len(domain) for domain in by_domain))
    ordered = [domain[i] for i in rounds for domain in by_domain if i < len(domain)]
    return tuple(passage for passage in ordered if language in (None, passage.language))


def passage(name_or_text: str) -> str:
    """The text of the project's passage of that name; anything with a space in it is taken as a text itself."""
    if " " in name_or_text.strip():
        return name_or_text
    named = {entry.name: entry.text for entry in passages(None)}
    if name_or_text not in named:
        close = get_close_matches(name_or_text, named, 1, 0.0)
        raise FirstTokenError(
            f"There is no passage {name_or_text!r}; did you mean {close[0]!r}? Or give a whole text."
        )
    return named[name_or_text]


@cache
def long_text() -> str:
    """A document of more than 8,192 tokens: the language reference that every Python installation carries."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def texts_from(source: str | os.PathLike[str], *, limit: int = 170) -> list[str]:
    """Texts by one name.

    Args:
        source: `passages` (the project's, English), `languages` (the project's other languages), a text file
            (lines of `---` separate texts), a folder of .txt or .md files, or the id of a data set on the hub
            with a column `text`, as `org/name` or `org/name:configuration`.
        limit: how many texts at most.

    Raises:
        FirstTokenError: nothing there, or the optional package `datasets` is missing.
    """
    if not isinstance(source, str | os.PathLike):
        raise FirstTokenError(f"{source!r} names no texts; give `passages`, a file, a folder or a data set.")
    source = str(source)
    if not source.strip():
        raise FirstTokenError("No text was named; give `passages`, a file, a folder of .txt files or a data set.")
    if source == "passages":
        texts = [passage.text for passage in passages()]
    elif source == "languages":
        texts = [passage.text for passage in passages(None) if passage.language != "en"]
    elif (path := _path(source)).is_dir():
        inside = [file for file in path.rglob("*") if file.suffix.lower() in (".txt", ".md")]
        # Copies that editors and notebooks keep are hidden, and no further texts.
        files = sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts))
        texts = [read_text(file) for file in files if file.is_file()]
    elif path.is_file():
        texts = re.split(r"^---\s*$", read_text(path), flags=re.MULTILINE)
    else:
        texts = _from_hub(source, limit)
    # Byte order marks stand before each part that a program put together, and would be read as its first token.
    texts = [bare for text in texts if (bare := re.sub(r"^[\s\ufeff]+", "", text).rstrip())][:limit]
    if not texts:
        raise FirstTokenError(f"{source} holds no text; give a file, a folder of .txt files or a data set with text.")
    return texts


def exactly(source: str, count: int, skip: int = 0) -> list[str]:
    """`count` texts of `texts_from`, behind the first `skip`.

    Raises:
        FirstTokenError: there are fewer.
    """
    texts = texts_from(source, limit=skip + count)
    if len(texts) < skip + count:
        raise FirstTokenError(f"{source} holds {len(texts)} texts, fewer than passages={skip + count}; lower it.")
    return texts[skip:]


def _path(source: str) -> Path:
    try:
        return typed_path(source)
    except FirstTokenError as error:
        raise _no_texts(source) from error


def _no_texts(source: str) -> FirstTokenError:
    return FirstTokenError(
        f"There are no texts {shorten(source)!r}; use 'passages', 'languages', a file, a folder or a data set id "
        "org/name."
    )


def _from_hub(source: str, limit: int) -> list[str]:
    if not hub.is_id(source):
        raise _no_texts(source)
    _, texts = hub.stream(source)
    return list(islice((text for text in texts if len(text) > 1000), limit))
