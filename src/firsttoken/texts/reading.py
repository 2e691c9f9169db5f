"""A reader's own text files, as the characters that were written: what stands first is what is measured.

A byte order mark that stays in the text is three tokens in front of the first word, and UTF-16 read as UTF-8 is noise
with a NUL between the letters.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from firsttoken.errors import FirstTokenError

# The mark of UTF-32 begins with that of UTF-16, so it comes first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; its marks are taken away.

    Raises:
        FirstTokenError: it cannot be opened, or is in another encoding or no text at all.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FirstTokenError(f"{path} cannot be read ({error.strerror}).") from error
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise FirstTokenError(f"{path} is no text in UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if "\0" in text:
        raise FirstTokenError(f"{path} holds NUL characters, so it is no text in UTF-8; save it as UTF-8.")
    text = text.lstrip("\ufeff")  # further marks, of programs that put one before each part
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as reading in text mode does
