"""The progress line of a streamed pass: layers, bytes, rate and time left, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Rewrites one line on a terminal; elsewhere (a log, a notebook) writes a line at most every `every` seconds."""

    def __init__(
        self, name: str, layers: int, total_bytes: int, first: int = 0, every: float = 30.0, to: TextIO | None = None
    ) -> None:
        self.name, self.layers, self.total, self.every = name, layers, total_bytes, every
        self.to = to or sys.stderr
        self.done = 0
        self.start = self.shown = time.monotonic()
        if first:
            self._write(f"{name}: taken up again after layer {first} of {layers}", end="\n")

    def layer_done(self, layer: int, size: int) -> None:
        self.done += size
        now, last = time.monotonic(), layer + 1 == self.layers
        terminal = self.to.isatty()
        if not terminal and now - self.shown < self.every:
            return
        self.shown = now
        rate = self.done / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate
        line = (
            f"{self.name}: layer {layer + 1} of {self.layers}, {self.done / 1e9:.1f} of {self.total / 1e9:.1f} GB, "
            f"{rate / 1e9:.2f} GB/s, {duration(left)} left"
        )
        self._write(f"\r{line:<100}" if terminal else line, end="\n" if last or not terminal else "")

    def _write(self, line: str, end: str) -> None:
        print(line, end=end, file=self.to, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: `2 h 05 min`, `1 min 30 s`, `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
