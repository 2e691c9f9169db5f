"""The one exception that a user is meant to read: a sentence that says what to do."""

from __future__ import annotations

import unicodedata


class FirstTokenError(Exception):
    """Something the user can put right. The message is one clear sentence; the command line prints only it.

    Messages repeat what was typed or read. Characters in it that would break the line or steer a terminal are shown
    by their escapes.
    """

    def __str__(self) -> str:
        return "".join(map(_visible, super().__str__()))


def _visible(character: str) -> str:
    # Several failures are told on a line each.
    harmless = character == "\n" or unicodedata.category(character) not in ("Cc", "Zl", "Zp", "Cs")
    return character if harmless else character.encode("unicode_escape").decode()
