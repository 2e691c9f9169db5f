"""A checkpoint on disk: sharded safetensors, checked as a whole before anything is computed from it.

A safetensors file is eight bytes of header length, a JSON header with the type, shape and place of every tensor, and
the tensors' bytes. Reading the headers of 191 shards takes a moment, and shows a shard that is missing, half downloaded
or cut off before hours of computing have been spent on the others.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError

_DTYPES = {
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
_ALIGNMENT = 64  # bytes; what vector instructions and DMA like
_STEP = 1 << 26  # bytes that one system call reads


@dataclass(frozen=True)
class Entry:
    """Where one tensor is."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file
    size: int  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """Every tensor of a model on disk, by name."""

    folder: Path
    tensors: dict[str, Entry]

    @property
    def files(self) -> list[Path]:
        return sorted({entry.file for entry in self.tensors.values()})

    def size(self, names: Iterable[str] | None = None) -> int:
        """Bytes of the named tensors, or of all."""
        return sum(self.tensors[name].size for name in (self.tensors if names is None else names))


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of all shards.

    Raises:
        FirstTokenError: a shard is missing, shorter or longer than its header says, or lacks a tensor of the index.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            placed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError) as error:
            raise FirstTokenError(f"The index {index} is damaged; download it again.") from error
        files = [folder / name for name in sorted(set(placed.values()))]
    else:
        placed, files = {}, sorted(folder.glob("*.safetensors"))
        if not files:
            raise FirstTokenError(f"The folder {folder} has no .safetensors files.")
    if missing := [file.name for file in files if not file.is_file()]:
        raise FirstTokenError(
            f"{folder} lacks {len(missing)} of {len(files)} shards ({', '.join(missing[:3])}"
            f"{' ...' if len(missing) > 3 else ''}); finish the download first."
        )
    tensors: dict[str, Entry] = {}
    for file in files:
        found = _entries(file)
        if lost := [name for name, where in placed.items() if where == file.name and name not in found]:
            raise FirstTokenError(f"{file} lacks {lost[0]}, which the index puts there; download it again.")
        # Without an index every file counts; with one, a file may also hold tensors that the index does not list.
        tensors |= {name: entry for name, entry in found.items() if not placed or placed.get(name) == file.name}
    return Checkpoint(folder, tensors)


def _entries(file: Path) -> dict[str, Entry]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length + 8 > size:
            raise FirstTokenError(f"{file} is truncated: {size} bytes, less than its header; download it again.")
        try:
            header = json.loads(opened.read(length))
            start = 8 + length
            found = {
                name: Entry(file, _DTYPES[it["dtype"]], tuple(it["shape"]), start + begin, end - begin)
                for name, it in header.items()
                if name != "__metadata__"
                for begin, end in (it["data_offsets"],)
            }
        except (ValueError, KeyError, TypeError) as error:
            raise FirstTokenError(f"The header of {file} cannot be read; download it again.") from error
    needed = max((entry.offset + entry.size for entry in found.values()), default=start)
    if size != needed:
        how = "truncated" if size < needed else "too long"
        raise FirstTokenError(f"{file} is {how}: {size} bytes instead of {needed}; download it again.")
    for name, entry in found.items():
        if entry.size != math.prod(entry.shape) * entry.dtype.itemsize:
            raise FirstTokenError(f"The header of {file} contradicts itself at {name}; download it again.")
    return found


class Reader:
    """Reads groups of tensors from a checkpoint into buffers that are used again, and counts the bytes.

    Fresh memory costs a page fault every 4 KiB, which on a fast disk takes as long as the reading itself; so a buffer
    goes back into a pool with `give_back` when its tensors are no longer needed. The file's pages are read with
    `pread` and not mapped, because mapped pages would count as memory of this process.

    Args:
        capacity: bytes of the largest group that `read` will be asked for.
        pinned: page-locked buffers, which a CUDA GPU copies from several times faster.
    """

    def __init__(self, checkpoint: Checkpoint, capacity: int = 0, pinned: bool = False) -> None:
        self.checkpoint = checkpoint
        self.bytes_read = 0
        self._capacity, self._pinned = capacity, pinned
        self._pool: list[Tensor] = []
        self._descriptors = {file: os.open(file, os.O_RDONLY) for file in checkpoint.files}
        if hasattr(os, "posix_fadvise"):
            for descriptor in self._descriptors.values():
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, names: Iterable[str]) -> tuple[dict[str, Tensor], Tensor]:
        """The named tensors, as views of one buffer, and that buffer (1-d, uint8)."""
        # In the order of the files, so that a disk reads on without seeking.
        entries = sorted(
            ((name, self.checkpoint.tensors[name]) for name in names), key=lambda item: (item[1].file, item[1].offset)
        )
        needed = padded_size(entry.size for _, entry in entries)
        buffer = self._buffer(needed)
        memory = memoryview(buffer.numpy())
        tensors, place = {}, 0
        for name, entry in entries:
            self._fill(memory[place : place + entry.size], entry)
            flat = buffer[place : place + entry.size]
            tensors[name] = flat.view(entry.dtype).view(entry.shape)
            place += padded_size([entry.size])
        return tensors, buffer

    def give_back(self, buffer: Tensor) -> None:
        """The tensors of this buffer are no longer in use."""
        self._pool.append(buffer)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}
        self._pool = []

    def _buffer(self, needed: int) -> Tensor:
        for i, old in enumerate(self._pool):
            if old.numel() >= needed:
                return self._pool.pop(i)
        return torch.empty(max(needed, self._capacity), dtype=torch.uint8, pin_memory=self._pinned)

    def _fill(self, memory: memoryview, entry: Entry) -> None:
        descriptor, done = self._descriptors[entry.file], 0
        while done < entry.size:
            got = os.preadv(descriptor, [memory[done : done + _STEP]], entry.offset + done)
            if got == 0:
                raise FirstTokenError(f"{entry.file} became shorter while it was read; download it again.")
            done += got
        self.bytes_read += done


def padded_size(sizes: Iterable[int]) -> int:
    """Bytes that a buffer needs for tensors of these sizes, each beginning at a multiple of 64 bytes."""
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)
