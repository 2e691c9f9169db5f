"""The bar of a long measurement: what share is done, when it shows, and that nothing is left of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

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


def test_other_threads_show_nothing(shares: list[float]) -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(tracked(range(3))))
    thread.start()
    thread.join()
    assert (seen, shares) == ([0, 1, 2], [])
