"""Runs on a graphics card that is at hand for minutes at a time: each is begun only if it fits into what is left.

No call leans on an earlier one's checkpoints, which may be gone with the machine. A run that does not end in time all
the same is halted, and where its checkpoint is still there the next time, it goes on from it.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from statistics import median

from firsttoken import records
from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import train
from firsttoken.pretraining.corpora import Corpus, open_corpus
from firsttoken.pretraining.only_trainer import AlreadyTraining
from firsttoken.pretraining.run_spec import CLAIM, Training, find
from firsttoken.processes import end_with_parent
from firsttoken.progress import duration
from firsttoken.records.provenance import machine

BEGINNING = 20.0  # seconds that a run takes besides training: start, and the last measurement
LONGEST = 10_000  # minutes of a call
PASSED_OVER = 75  # the status of a process that found its run in training; 75 is "try again later" on Unix

Seconds = Callable[[Training], float | None]  # how long a run will take; None where nothing says


def expected_seconds(training: Training) -> float | None:
    """How long a run takes, from the median operations a second of earlier runs of its budget on such a machine; None
    if there are none, or if they cannot be read."""
    here = machine()["machine"]
    try:
        earlier = records.all_records(CLAIM)
    except FirstTokenError:
        return None
    rates = [
        record.values["flops_per_second"]
        for record in earlier
        if record.parameters["budget"] == training.budget
        and record.provenance.get("machine") == here
        and record.values["flops_per_second"]
    ]
    if not rates:
        return None
    settings = training.settings()
    operations = settings.steps * settings.tokens_per_step * settings.flops_per_token(training.packing.length)
    return BEGINNING + operations / median(rates)


def share_left(training: Training, corpus: Corpus) -> float:
    """What is left of a run behind its last checkpoint; 1 for one that has none."""
    checkpoint = train.last_checkpoint(train.work_folder(training, corpus))
    return 1 - train.step_of(checkpoint) / training.settings().steps if checkpoint else 1.0


def run(
    trainings: Sequence[Training],
    minutes: float,
    spared: Callable[[Training], str] = lambda training: "",
    before: Callable[[Training], Training | None] = lambda training: None,
    seconds: Seconds = expected_seconds,
    say: Callable[[str], None] = print,
) -> list[Training]:
    """Train what has no record yet, one after the other, until all is done or nothing more fits into the time.

    Args:
        spared: asked before each run: why it need not be trained any more, or nothing.
        before: the run that must have its record first, if there is one.
        seconds: how long a run takes as a whole.
        say: called with a line for each run that starts, ends or is passed over.

    Returns:
        what has no record yet and is not spared

    Raises:
        FirstTokenError: the minutes make no sense, there is no such text, or a run failed; those before it have their
            records.
    """
    if not 0 < minutes <= LONGEST:
        raise FirstTokenError(f"Give more than 0 minutes and at most {LONGEST}.")
    deadline = time.monotonic() + 60 * minutes
    # Not a fork: a process that has begun to use a card cannot be forked.
    context = multiprocessing.get_context("spawn")
    for training in trainings:
        if find(training) is not None:
            continue
        if why := spared(training):
            say(f"{training.slug}: not trained: {why}")
            continue
        if (first := before(training)) is not None and find(first) is None:
            say(f"{training.slug}: waits for {first.slug}")
            continue
        corpus = open_corpus(training.settings().corpus)  # now, so that the time left is that for training
        whole, left = seconds(training), deadline - time.monotonic()
        needs = None if whole is None else whole * share_left(training, corpus)
        if needs is not None and needs > left:
            say(f"{training.slug}: not begun, it takes about {duration(needs)} and {duration(max(left, 0))} are left")
            continue
        if left <= 0:
            break
        say(f"{training.slug}: begun, {duration(needs) if needs is not None else 'nothing says how long it'} takes")
        # No daemon: those may have no children, and on a card texts are read by some.
        process = context.Process(target=train_in_child, args=(training,))
        process.start()
        try:
            process.join(left)
            ended = not process.is_alive()
        finally:
            process.kill()
            process.join()
        if not ended:
            say(f"{training.slug}: halted at the end of the time")
            break
        if process.exitcode == PASSED_OVER:
            say(f"{training.slug}: passed over, another process trains it")
            continue
        if process.exitcode:
            raise FirstTokenError(f"{training.slug} failed, see the lines above; what was done before has its record.")
        say(f"{training.slug}: done")
    return [training for training in trainings if find(training) is None and not spared(training)]


def train_in_child(training: Training) -> None:
    """Train in a process that ends with its parent, and with a sentence where something is wrong; with `PASSED_OVER`
    where another process trains the same."""
    end_with_parent()
    try:
        train.measure(training)
    except AlreadyTraining:
        raise SystemExit(PASSED_OVER) from None
    except FirstTokenError as error:
        raise SystemExit(f"{training.slug}: {error}") from None
