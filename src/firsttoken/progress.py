"""How far a measurement is, on stderr: `tracked` for loops, `Progress` for the layers of a streamed pass."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")
DELAY = 10.0  # seconds before a bar shows; what is over sooner needs none
_LOG_EVERY = 30.0  # seconds between lines where no terminal is


@dataclass(eq=False)
class _Loop:
    """One loop that runs, inside those before it in `_Work.loops`."""

    total: int
    done: int = 0


@dataclass
class _Work:
    """What the bar of this process shows: a measurement's name, how many bars it has had, its loops from the outermost
    in, the bar."""

    name: str = ""
    bars: int = 0
    loops: list[_Loop] = field(default_factory=list)
    bar: _Bar | None = None

    @property
    def share(self) -> float:
        """How much of the outermost loop is done, the inner ones counted as parts of its present step."""
        share, width = 0.0, 1.0
        for loop in self.loops:
            width /= max(loop.total, 1)
            share += loop.done * width
        return min(share, 1.0)

    def leave(self, loops: list[_Loop]) -> None:
        """Go on with these loops only; without any, the bar goes too."""
        self.loops = loops
        if not loops and self.bar is not None:
            self.bar.close()
            self.bar = None


_work = _Work()


@contextmanager
def measuring(name: str) -> Iterator[None]:
    """Inside the block, bars are headed `name`, for example a claim and a model; a second loop after the first is
    headed "step 2", so that its bar is not taken for the same work once more."""
    before, loops_before = (_work.name, _work.bars), list(_work.loops)
    _work.name, _work.bars = name, 0
    try:
        yield
    finally:
        _work.name, _work.bars = before
        # Where an error is being kept for a look at it, the loops that it ended are not closed by themselves.
        _work.leave(loops_before)


def tracked(items: Collection[T]) -> Iterator[T]:
    """The items of a long loop; a bar with the time left shows on stderr once the outermost such loop has taken ten
    seconds, and is gone when it ends. Loops may nest: an inner one moves the bar within a step of the outer one.

    In threads other than the main one the items are passed on and nothing is shown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from items
        return
    loop = _Loop(len(items))
    if not _work.loops:
        _work.bars += 1
        _work.bar = _bar(_work.name + (f", step {_work.bars}" if _work.bars > 1 else ""))
    _work.loops.append(loop)
    try:
        for number, item in enumerate(items):
            loop.done = number
            _show()
            yield item
        loop.done = loop.total
        _show()
    finally:
        if loop in _work.loops:
            _work.leave(_work.loops[: _work.loops.index(loop)])


class _Bar(tqdm):
    """A bar without the thread that looks after stuck bars every ten seconds: it would outlive the loop."""

    monitor_interval = 0


def _bar(name: str) -> _Bar:
    # Its own lock is shared by processes and would outlive one that is ended from outside; here one thread draws.
    _Bar.set_lock(threading.RLock())
    terminal = sys.stderr.isatty()
    return _Bar(
        desc=name or None,
        total=1.0,
        delay=DELAY,
        leave=False,
        mininterval=0.5 if terminal else _LOG_EVERY,
        bar_format="{desc}: {percentage:3.0f} % |{bar:20}| {elapsed}, {remaining} left" + ("" if terminal else "\n"),
        file=sys.stderr,
    )


def _show() -> None:
    if (bar := _work.bar) is not None:
        bar.update(_work.share - bar.n)


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
