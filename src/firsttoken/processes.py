"""Processes that end when the one that started them does, however it ended; and whether one still runs."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Called first in a process that `multiprocessing` has started: end it as soon as its parent is gone.

    A parent that is terminated or killed ends no child, not even a daemon: it would train or measure on, unseen, and
    its machine would be slow for no visible reason.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def is_running(number: int) -> bool:
    """Whether there is a process of this number, perhaps another user's."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
