"""What a GGUF file says about itself, read with suspicion: nothing is allocated that the file could not hold.

A GGUF file is the magic `GGUF`, a version, two counts, key-value pairs, a table of tensors (name, shape, type, offset)
and the data. A damaged or a hostile file may claim any count, length or offset; here each is compared with the size of
the file before it is believed, so that the readers of the libraries meet only files that keep their promises.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsttoken.errors import FirstTokenError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """One entry of the table. `shape` is in torch's order, `start` counts from the beginning of the file."""

    shape: tuple[int, ...]
    kind: str  # as ggml spells it: F32, Q4_K ...
    start: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """Keys with their values (of arrays only the length) and the tensors."""

    keys: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        return str(self.keys["general.architecture"])

    @property
    def kinds(self) -> str:
        """Types of the tensors, the one with most numbers first, for people to read."""
        numbers: dict[str, int] = {}
        for tensor in self.tensors.values():
            numbers[tensor.kind] = numbers.get(tensor.kind, 0) + math.prod(tensor.shape)
        return ", ".join(sorted(numbers, key=lambda kind: (-numbers[kind], kind)))


class _Broken(Exception):
    """The file ends before what it promises, or says what no GGUF file says."""


def read_gguf_header(path: Path, part: bool = False) -> GgufHeader:
    """Read and check everything before the data.

    Args:
        part: the file may be one part of a model, see `gguf_parts`; later parts name no architecture.

    Raises:
        FirstTokenError: not a GGUF file, damaged, truncated, or one part of a split file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise FirstTokenError(f"{path} is not a GGUF file or is damaged; download it again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                header = _parse(content)
    except (_Broken, struct.error, UnicodeDecodeError) as error:
        raise FirstTokenError(f"{path} is damaged ({error}); download it again.") from error
    parts = header.keys.get("split.count", 0)
    if isinstance(parts, int) and parts > 1 and not part:
        raise FirstTokenError(
            f"{path} is one of {parts} parts of a model, and its name does not say which; give the parts their names "
            "back, "
            f"which end in -00001-of-{parts:05}.gguf and so on, and keep them in one folder."
        )
    if not part and not isinstance(header.keys.get("general.architecture"), str):
        raise FirstTokenError(f"{path} does not say which architecture it is, so it is no language model's file.")
    end = max((tensor.start + tensor.bytes for tensor in header.tensors.values()), default=0)
    if end > size:
        raise FirstTokenError(f"{path} is truncated: it has {size} of {end} bytes; download it again.")
    if sum(tensor.bytes for tensor in header.tensors.values()) > size:
        raise FirstTokenError(f"{path} is damaged (its tensors lie on top of each other); download it again.")
    return header


@dataclass
class _Reader:
    content: mmap.mmap
    at: int = 4

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.content, self.at)
        self.at += struct.calcsize(form)
        return value

    def count(self, smallest: int) -> int:
        """A count of things of which each takes at least `smallest` bytes of what is left of the file."""
        value = int(self.number("<Q"))
        if value * smallest > len(self.content) - self.at:
            raise _Broken(f"it promises {value} entries at byte {self.at} and ends before")
        return value

    def skip(self, length: int) -> None:
        if length > len(self.content) - self.at:
            raise _Broken(f"it ends inside a value at byte {self.at}")
        self.at += length

    def skip_strings(self, number: int) -> None:
        """Whatever asks for a model's provenance passes over its vocabulary, a quarter of a million strings, so the
        loop does without calls."""
        content, at, end = self.content, self.at, len(self.content)
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(number):
            at += 8 + length_at(content, at)[0]
            if at > end:
                raise _Broken(f"it ends inside a string before byte {at}")
        self.at = at

    def string(self) -> str:
        length = self.count(1)
        self.at += length
        return self.content[self.at - length : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise _Broken(f"a value of unknown type {kind}")
        inner = self.number("<I")
        if inner in _SCALARS:
            width = struct.calcsize(_SCALARS[inner])
            length = self.count(width)
            self.skip(length * width)
        elif inner == _STRING:
            length = self.count(8)
            self.skip_strings(length)
        else:
            raise _Broken(f"an array of type {inner}")
        return length


def _parse(content: mmap.mmap) -> GgufHeader:
    reader = _Reader(content)
    if (version := reader.number("<I")) not in (2, 3):
        raise _Broken(f"version {version}, only 2 and 3 are read")
    tensor_count, key_count = reader.number("<Q"), reader.number("<Q")
    # The smallest key is a length, a type and one byte; the smallest tensor a length and four numbers.
    if key_count * 13 + tensor_count * 24 > len(content):
        raise _Broken(f"it promises {key_count} keys and {tensor_count} tensors and is too short for them")
    keys: dict[str, Any] = {}
    for _ in range(key_count):
        name = reader.string()
        if name in keys:
            raise _Broken(f"{name} comes twice")
        keys[name] = reader.value(reader.number("<I"))
    told = {}
    for _ in range(tensor_count):
        name = reader.string()
        if name in told:
            raise _Broken(f"{name} comes twice")
        told[name] = _tensor(reader, name)
    alignment = keys.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise _Broken(f"an alignment of {alignment}")
    begin = -(-reader.at // alignment) * alignment
    tensors = {
        name: GgufTensor(shape=shape, kind=kind.name, start=begin + offset, bytes=size)
        for name, (shape, kind, offset, size) in told.items()
    }
    return GgufHeader(keys=keys, tensors=tensors)


def _tensor(reader: _Reader, name: str) -> tuple[tuple[int, ...], Any, int, int]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    dimensions = reader.number("<I")
    if not 0 < dimensions <= 8:
        raise _Broken(f"{name} has {dimensions} dimensions")
    shape = tuple(reversed([reader.number("<Q") for _ in range(dimensions)]))
    try:
        kind = GGMLQuantizationType(reader.number("<I"))
    except ValueError:
        raise _Broken(f"{name} is of an unknown type") from None
    offset = reader.number("<Q")
    block, width = GGML_QUANT_SIZES[kind]
    numbers = math.prod(shape)
    if shape[-1] % block:
        raise _Broken(f"{name} does not divide into blocks of {kind.name}")
    return shape, kind, offset, numbers // block * width
