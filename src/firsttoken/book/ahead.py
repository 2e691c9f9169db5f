"""Measure what chapters will show before their notebooks run: each model is loaded once for all of them, and progress
shows in the terminal, where a notebook's output does not.

>>> with Ahead() as ahead:
...     ahead.measure("sink_rates", {"model": "org/name"})   # its notebook finds the records afterwards

A process of its own does it, so that a model that needs too much memory ends that process and not the command.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Mapping
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from firsttoken import claims
from firsttoken.files import ROOT
from firsttoken.processes import end_with_parent


class Ahead:
    """The process that measures; started when it is first needed, ended with the block."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._process: Any = None
        self._line: Connection | None = None
        self._begun: tuple[str, dict[str, Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def measure(self, chapter: str, values: Mapping[str, Any]) -> bool:
        """Measure everything that a chapter asks for with these parameters and that has no record yet.

        Returns:
            whether all of it is there now. It is not where there is nothing to measure, where that failed, or where
            the process was ended from outside; the notebook then meets the same obstacle and reports it.
        """
        asked = (chapter, dict(values))
        if self._begun != asked:
            self._answer()  # of what nobody asks for any more
            self.begin(chapter, values)
        return self._answer()

    def begin(self, chapter: str, values: Mapping[str, Any]) -> None:
        """Start measuring and return at once; `measure`, asked for the same, waits for it."""
        if chapter not in claims.names():
            return
        if self._process is None:
            # Not a fork: threads of torch and a GPU would be in an unknown state in it.
            context = multiprocessing.get_context("spawn")
            self._line, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other, self.root), daemon=True)
            self._process.start()
            other.close()
        assert self._line is not None
        self._begun = (chapter, dict(values))
        with contextlib.suppress(OSError):  # `_answer` meets it again
            self._line.send(self._begun)

    def _answer(self) -> bool:
        """Whether what was begun is there now; waits for it."""
        if self._begun is None:
            return False
        assert self._line is not None
        self._begun = None
        try:
            return bool(self._line.recv())
        except (EOFError, OSError):
            self._end()
            return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = self._begun = None


def _serve(line: Connection, root: Path) -> None:
    end_with_parent()
    # Ctrl-C reaches the whole process group; this part of it has nothing to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(EOFError):
        while True:
            chapter, values = line.recv()
            try:
                measured = _measure(chapter, values, root)
            except Exception:
                measured = False
            line.send(measured)


def _measure(chapter: str, values: Mapping[str, Any], root: Path) -> bool:
    """Whether there was anything to measure."""
    from firsttoken.book import chapters
    from firsttoken.book.notebook import Notebook

    declared = {name: one.value for name, one in chapters.parameters(chapter, root).items()}
    notebook = Notebook(chapter, {**declared, **values}, load=_loaded)
    for measurement in claims.measurements(chapter):
        if not measurement.on_demand or notebook.asked.get(measurement.on_demand):
            notebook.records(measurement)
    return bool(claims.measurements(chapter))


@lru_cache(maxsize=1)  # the models of the last chapter, for the next
def _loaded(names: str, **settings: Any) -> Any:
    from firsttoken import models

    return models.load_all(names, **settings)
