"""Many runs within a number of minutes, some of them side by side, each in a process with one thread.

A run that the end of the time interrupts goes on from its last checkpoint the next time, so that any number of short
calls does what one long call would.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining.run_spec import Training, find
from firsttoken.pretraining.whole_runs import LONGEST, PASSED_OVER, train_in_child


def run(
    trainings: Sequence[Training], minutes: float, at_once: int = 2, say: Callable[[str], None] = print
) -> list[Training]:
    """Train what has no record yet, in order, until all is done or the time is over.

    Args:
        at_once: how many runs go side by side; two single threads do more than one run with two.
        say: called with a line for each run that starts and ends.

    Returns:
        what has no record yet

    Raises:
        FirstTokenError: the numbers make no sense, or runs failed; it names them, and the others were done.
    """
    if not 0 < minutes <= LONGEST or at_once < 1:
        raise FirstTokenError(f"Give more than 0 minutes, at most {LONGEST}, and at least one run at once.")
    deadline = time.monotonic() + 60 * minutes
    waiting = [training for training in trainings if find(training) is None]
    running: dict[Training, Any] = {}
    failed: list[str] = []
    # Not a fork: torch's threads would be in an unknown state in it.
    context = multiprocessing.get_context("spawn")
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                training = waiting.pop(0)
                running[training] = context.Process(target=_train, args=(training,))
                running[training].start()
                say(f"{training.slug}: started, {len(waiting)} waiting")
            wait([process.sentinel for process in running.values()], timeout=max(0.0, deadline - time.monotonic()))
            for training, process in list(running.items()):
                if not process.is_alive():
                    del running[training]
                    process.join()
                    if process.exitcode == 0:
                        say(f"{training.slug}: done")
                    elif process.exitcode == PASSED_OVER:
                        say(f"{training.slug}: passed over, another process trains it")
                    else:
                        failed.append(training.slug)
                        say(f"{training.slug}: failed")
            if time.monotonic() >= deadline:
                break
    finally:
        for training, process in running.items():
            process.kill()
            process.join()
            say(f"{training.slug}: halted, goes on from its last checkpoint the next time")
    if failed:
        raise FirstTokenError(f"{len(failed)} of the runs failed, see the lines above: {', '.join(failed)}.")
    return [training for training in trainings if find(training) is None]


def _train(training: Training) -> None:
    torch.set_num_threads(1)
    train_in_child(training)
