"""One process at a time trains a run: a second would remove the checkpoints that the first is writing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from firsttoken.errors import FirstTokenError


class AlreadyTraining(FirstTokenError):
    """Another process trains this run."""


@contextmanager
def only_trainer(folder: Path, name: str) -> Iterator[None]:
    """Hold a run's folder of checkpoints; the operating system lets it go when the process ends, however that is.

    Args:
        name: the run's, for the sentence.

    Raises:
        AlreadyTraining: another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyTraining(
            f"{name} is being trained by another process; wait for its record, or train something else."
        ) from None
    try:
        yield
    finally:
        lock.release()


def remove_checkpoints(folder: Path, name: str) -> None:
    """Remove them unless another process is training on."""
    try:
        with only_trainer(folder, name):
            shutil.rmtree(folder, ignore_errors=True)
    except AlreadyTraining:
        return
