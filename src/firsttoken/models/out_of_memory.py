"""An allocation that failed, on any device, in one sentence with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from firsttoken.errors import FirstTokenError

# torch has no common class for these: CUDA raises OutOfMemoryError, the CPU allocator a bare RuntimeError.
_ALLOCATION_FAILED = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _ALLOCATION_FAILED.search(str(error)) is not None
    )


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn an allocation failure inside the block into a `FirstTokenError` that names the `remedy`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise FirstTokenError(f"Out of memory: {remedy}.") from error
