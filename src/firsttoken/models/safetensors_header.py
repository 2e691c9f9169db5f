"""The tensors of one safetensors file, by its header, which is compared with the file and not trusted.

A safetensors file is eight bytes with the length of its header, the header (JSON: name -> dtype, shape, offsets), then
the data. So its right size is known from its first kilobytes, and a download that stopped early shows at once.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from firsttoken.errors import FirstTokenError

LONGEST_HEADER = 100_000_000  # bytes; the safetensors library itself reads no longer one
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    shard: str
    start: int  # of its bytes, counted from the beginning of the file
    bytes: int
    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]


def entries_of(path: Path) -> dict[str, Entry]:
    """The tensors of one file. Whoever wrote it is not trusted: what the header promises must fit in the file,
    tensor by tensor and all together, before anybody takes memory for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length + 8 > size:
            raise FirstTokenError(f"{path} is truncated: it ends inside its header; download it again.")
        if length > LONGEST_HEADER:
            raise FirstTokenError(f"{path} has a header of {length} bytes, which no real model has; do not use it.")
        raw = file.read(length)
    begin = length + 8
    try:
        header = json.loads(raw)
        entries = {name: _entry(path.name, begin, told) for name, told in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FirstTokenError(f"{path} is damaged or is no safetensors file; download it again.") from error
    end = max((entry.start + entry.bytes for entry in entries.values()), default=begin)
    if size < end:
        raise FirstTokenError(f"{path} is truncated: it has {size} of {end} bytes; download it again.")
    if unknown := sorted({entry.dtype for entry in entries.values()} - set(DTYPES)):
        raise FirstTokenError(f"{path} holds numbers of type {unknown[0]}, which torch cannot hold as they are.")
    for name, entry in entries.items():
        if math.prod(entry.shape) * DTYPES[entry.dtype].itemsize != entry.bytes:
            raise FirstTokenError(f"{path} is damaged: {name} has another size than its shape; download it again.")
    if sum(entry.bytes for entry in entries.values()) > size - begin:
        raise FirstTokenError(f"{path} is damaged: its tensors lie on top of each other; download it again.")
    return entries


def _entry(shard: str, begin: int, told: dict[str, Any]) -> Entry:
    """Raises `ValueError` or what indexing raises where `told` is no description of a tensor."""
    start, end = told["data_offsets"]
    shape = tuple(told["shape"])
    numbers = (start, end, *shape)
    if not isinstance(told["dtype"], str) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise ValueError("not a tensor")
    if end < start or len(shape) > 16:
        raise ValueError("not a tensor")
    return Entry(shard, begin + start, end - start, told["dtype"], shape)
