"""A model's weights on disk: sharded safetensors, checked as a whole before anything is computed.

>>> checkpoint = open_checkpoint(folder)   # reads the index and the headers, no weights
>>> checkpoint.bytes                       # what the weights take on disk
>>> checkpoint.read("model.norm.weight")   # one tensor; `checkpoint.bytes_read` counts
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models.safetensors_header import DTYPES, Entry, entries_of

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_READABLE = (".safetensors", ".safetensors.index.json")


@dataclass
class Checkpoint:
    """All tensors of a model on disk, none of them in memory."""

    folder: Path
    tensors: Mapping[str, Entry]
    bytes_read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _spare: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)  # size in bytes -> uint8 buffers
    _readers: set[threading.Thread] = field(default_factory=set, repr=False)  # in which lazy tensors were read

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.tensors.values())

    @property
    def shards(self) -> list[Path]:
        return [self.folder / name for name in sorted({entry.shard for entry in self.tensors.values()})]

    def parameters(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(torch.Size(entry.shape).numel() for entry in self.tensors.values())

    def lazy(self, name: str) -> LazyTensor:
        return LazyTensor(self, name)

    def read(self, name: str) -> Tensor:
        """One tensor from disk, in the precision it is stored in; safe to call from several threads."""
        entry = self.tensors[name]
        with self._lock:
            spare = self._spare.get(entry.bytes)
            raw = spare.pop() if spare else torch.empty(entry.bytes, dtype=torch.uint8)
        path = self.folder / entry.shard
        with path.open("rb", buffering=0) as file:
            file.seek(entry.start)
            rest = raw.numpy().data
            # One call returns at most 2 GiB.
            while rest and (got := file.readinto(rest)):
                rest = rest[got:]
        if rest:
            raise FirstTokenError(f"{path} became shorter while it was read; download it again.")
        with self._lock:
            self.bytes_read += entry.bytes
        return raw.view(DTYPES[entry.dtype]).view(entry.shape) if entry.bytes else _empty(entry)

    def recycle(self, tensor: Tensor, limit: int) -> None:
        """Take the memory of a tensor that nobody uses any more for the next `read` of its size.

        The operating system zeroes fresh memory page by page, which costs more than copying a cached file into it.

        Args:
            limit: bytes that may wait for use; memory beyond that is left to be freed.
        """
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        with self._lock:
            waiting = sum(size * len(buffers) for size, buffers in self._spare.items())
            if tensor.device.type == "cpu" and size in self._sizes and waiting + size <= limit:
                self._spare.setdefault(size, []).append(torch.empty(0, dtype=torch.uint8).set_(storage))

    @contextmanager
    def readers_joined(self) -> Iterator[None]:
        """No thread in which a lazy tensor was read inside the block is left after it.

        transformers reads in a pool of threads, and leaves it without waiting for their end.
        """
        try:
            yield
        finally:
            # A thread of the pool that came too late to read anything is known by the pool's name only.
            caller = threading.current_thread()
            pools = {_pool(thread) for thread in self._readers if thread is not caller}
            self._readers.clear()
            for thread in threading.enumerate():
                if thread is not caller and _pool(thread) in pools:
                    thread.join()

    def forget_spare(self) -> None:
        self._spare.clear()

    @cached_property
    def _sizes(self) -> frozenset[int]:
        return frozenset(entry.bytes for entry in self.tensors.values() if entry.bytes)

    def drop_cache(self) -> None:
        """Ask the operating system to forget its copy of the files in memory, so that the next read is from disk."""
        for shard in self.shards:
            with shard.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _pool(thread: threading.Thread) -> str:
    """`ThreadPoolExecutor-3` for its second thread `ThreadPoolExecutor-3_1`; the whole name outside a pool."""
    pool, _, number = thread.name.rpartition("_")
    return pool if number.isdigit() else thread.name


def _empty(entry: Entry) -> Tensor:
    return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read when it is indexed: the part of safetensors' slices that transformers' loader uses."""

    checkpoint: Checkpoint
    name: str

    def __getitem__(self, index: Any) -> Tensor:
        self.checkpoint._readers.add(threading.current_thread())
        return self.checkpoint.read(self.name)[index]

    def get_shape(self) -> list[int]:
        return list(self.checkpoint.tensors[self.name].shape)

    def get_dtype(self) -> str:
        return self.checkpoint.tensors[self.name].dtype


def open_checkpoint(folder: Path | str) -> Checkpoint:
    """Find and check every shard of a model: the very files that transformers reads.

    Raises:
        FirstTokenError: a shard is missing, truncated or damaged, lacks a tensor that the index puts there, or holds
            one that another shard holds with other numbers.
    """
    folder = Path(folder)
    main = _main_file(folder)
    promised = _index(folder / main) if main.endswith(".index.json") else {}
    shards = sorted(set(promised.values())) or [main]
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise FirstTokenError(_what_is_missing(folder, shards, missing, indexed=bool(promised)))
    tensors: dict[str, Entry] = {}
    for shard in shards:
        entries = entries_of(folder / shard)
        both = sorted(tensors.keys() & entries)
        if differ := [name for name in both if not _same_bytes(folder, tensors[name], entries[name])]:
            raise FirstTokenError(
                f"{folder / tensors[differ[0]].shard} and {shard} hold different {differ[0]}, and which of the two "
                "counts is chance; take it out of one of them, or download the whole model again."
            )
        tensors |= entries
    if absent := sorted(name for name, shard in promised.items() if name not in tensors):
        raise FirstTokenError(
            f"{folder / promised[absent[0]]} lacks {absent[0]}, which the index puts there; download it again."
        )
    # What the index leaves out is there all the same: transformers reads whole shards.
    return Checkpoint(folder, tensors)


def _same_bytes(folder: Path, one: Entry, other: Entry) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with (folder / one.shard).open("rb") as first, (folder / other.shard).open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        left = one.bytes
        while left:
            size = min(left, 1 << 24)
            if first.read(size) != second.read(size):
                return False
            left -= size
    return True


def _main_file(folder: Path) -> str:
    """The file that transformers begins with: the one that config.json names, else the single file, else the index."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None  # a checkpoint alone; who needs the configuration says what is the matter with it
    named = config.get("transformers_weights") if isinstance(config, dict) else None
    if named is None:
        return INDEX if (folder / INDEX).exists() and not (folder / SINGLE).is_file() else SINGLE
    if not isinstance(named, str) or Path(named).name != named or not named.endswith(_READABLE):
        raise FirstTokenError(
            f"{folder / 'config.json'} says that the weights are in {named!r}; only a .safetensors file beside it, or "
            "the index of several, is read."
        )
    if not (folder / named).is_file():
        raise FirstTokenError(
            f"{folder / 'config.json'} says that the weights are in {named}, which is not there; download it, or take "
            "transformers_weights out of config.json."
        )
    return named


def _index(path: Path) -> dict[str, str]:
    """Tensor names and the shards that hold them. A shard is a file beside the index, whatever the index says."""
    try:
        promised = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not promised or not all(isinstance(s, str) and Path(s).name == s for s in promised.values()):
            raise ValueError("no shards in the folder of the index")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FirstTokenError(f"{path} is damaged; download it again.") from error
    return dict(promised)


def _what_is_missing(folder: Path, shards: list[str], missing: list[str], indexed: bool) -> str:
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others and not indexed:
        if all(name.startswith("consolidated") for name in others):
            return (
                f"The folder {folder} holds {others[0]}, the weights under the names of Mistral's own code; convert "
                "them to transformers' names (model.safetensors) first."
            )
        return (
            f"The folder {folder} has {len(others)} .safetensors files (the first {others[0]}) but neither "
            f"model.safetensors nor {INDEX}, which says what belongs together; copy the index from the same place."
        )
    if not others:
        pickled = next((path.name for path in sorted(folder.glob("*.bin"))), "a .bin file")
        return (
            f"{folder} has no weights in safetensors; finish the download, or where there is only {pickled}, whose "
            "pickled weights are not loaded, convert that first."
        )
    partly = sum(1 for _ in folder.rglob("*.incomplete"))
    note = f" ({partly} downloads are unfinished)" if partly else ""
    return (
        f"{folder} lacks {len(missing)} of {len(shards)} weight files, the first {missing[0]}{note}; "
        "finish the download."
    )
