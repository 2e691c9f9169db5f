"""The bar of a long measurement: what share is done, when it shows, and that nothing is left of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tqdm import tqdm

from firsttoken import progress
from firsttoken.progress import measuring, tracked


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the bar would show, each time that it moves."""
    seen: list[float] = []
    monkeypatch.setattr(progress, "_show", lambda: seen.append(progress._work.share))
    return seen


def test_an_inner_loop_moves_the_bar_within_a_step_of_the_outer_one(shares: list[float]) -> None:
    for _ in tracked(range(2)):
        for _ in tracked("abcd"):
            pass
    expected = [0, 0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.625, 0.75, 0.875, 1, 1]
    assert shares == pytest.approx(expected)


def test_items_come_in_order_and_once() -> None:
    assert [(a, b) for a in tracked([1, 2]) for b in tracked((3, 4))] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert list(tracked([])) == []


def test_a_bar_has_a_name_and_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "_LOG_EVERY", 0.0)
    with measuring("dose, some-model"):
        for _ in tracked(range(4)):
            pass
    shown = capsys.readouterr().err
    assert "dose, some-model:  50 %" in shown
    assert "left" in shown


def test_a_second_loop_does_not_look_like_the_first_once_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "_LOG_EVERY", 0.0)
    with measuring("dose, some-model"):
        for _ in tracked(range(2)):
            with measuring("what it needs"):
                list(tracked(range(2)))
        list(tracked(range(2)))
    with measuring("dose, another"):
        list(tracked(range(2)))
    shown = capsys.readouterr().err
    assert "dose, some-model:  50 %" in shown
    assert "dose, some-model, step 2:  50 %" in shown
    assert "dose, another:  50 %" in shown


def test_what_is_over_soon_shows_nothing(capsys: pytest.CaptureFixture) -> None:
    for _ in tracked(range(3)):
        for _ in tracked(range(3)):
            pass
    assert capsys.readouterr().err == ""


def failing(kept: list[object]) -> None:
    for _ in tracked(range(3)):
        inner = tracked(range(3))
        kept.append(inner)  # as a traceback keeps it that somebody looks at
        next(inner)
        raise ValueError("no")


@pytest.mark.parametrize("leave", [lambda kept: kept.clear(), lambda kept: None])
def test_an_error_leaves_no_loop_behind(leave: Callable[[list[object]], None], shares: list[float]) -> None:
    kept: list[object] = []
    with pytest.raises(ValueError, match="no"), measuring("breaks"):
        failing(kept)
    leave(kept)
    shares.clear()
    for _ in tracked(range(2)):
        pass
    assert shares == [0, 0.5, 1]


@pytest.mark.parametrize("delay", [0.0, 10.0])
def test_no_thread_outlives_a_loop(delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one begin while it runs: a process that forks meanwhile would inherit its locks."""
    monkeypatch.setattr(progress, "DELAY", delay)
    monkeypatch.setattr(tqdm, "monitor", None)  # that of somebody else's bar would do for this one
    before, during = set(threading.enumerate()), set()
    with measuring("no threads"):
        for _ in tracked(range(2)):
            during.update(threading.enumerate())
            list(tracked(range(2)))
    assert during | set(threading.enumerate()) <= before


def test_bars_of_others_stay_as_they_were() -> None:
    before = {name: tqdm.__dict__.get(name) for name in ("monitor_interval", "_lock")}
    list(tracked(range(2)))
    assert {name: tqdm.__dict__.get(name) for name in before} == before
    assert tqdm.monitor_interval > 0


def test_other_threads_show_nothing(shares: list[float]) -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(tracked(range(3))))
    thread.start()
    thread.join()
    assert (seen, shares) == ([0, 1, 2], [])
