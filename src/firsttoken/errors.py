"""The one exception that a user is meant to read: a sentence that says what to do."""

from __future__ import annotations


class FirstTokenError(Exception):
    """Something the user can put right. The message is one clear sentence; the command line prints only it."""
