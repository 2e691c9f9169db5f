"""How long steps take beside each other, by a clock that moves as the test says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from firsttoken.pretraining import step_times


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that it is, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: now[0])
    return now


def test_steps_take_turns_and_the_first_turn_warms_up(clock: list[float]) -> None:
    order = []

    def step(name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock[0] += next(seconds)

        return run

    steps = {
        "plain": step("plain", iter([50.0, 1, 2, 4])),
        "other": step("other", iter([1.0, 3, 3, 20])),  # 3, 1.5 and 5 times as long
    }
    times = step_times.over_first(steps, threads=2, rounds=3)
    assert order == ["plain", "other"] * 4
    assert times["threads"] == 2
    assert times["plain"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert (times["other"]["value"], times["other"]["n"]) == (3.0, 3)
    assert 1.5 <= times["other"]["low"] < 3 < times["other"]["high"] <= 5


def test_a_machine_that_slows_down_slows_all_steps(clock: list[float]) -> None:
    """Whatever else runs there: the ratio within a turn stays."""
    slowness = itertools.count(1)

    def plain() -> None:
        clock[0] += next(slowness)

    def other() -> None:
        clock[0] += 2 * (next(slowness) - 1)

    times = step_times.over_first({"plain": plain, "other": other}, threads=1, rounds=5)
    assert times["other"] == pytest.approx({"value": 2.0, "low": 2.0, "high": 2.0, "n": 5})
