"""Where two records of one question differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(
    ours: Any, theirs: Any, tolerance: float, path: str = "", ignore: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Where two values of a record differ by more than `tolerance` (absolute plus relative), as readable lines.

    Args:
        ignore: keys that are not compared, at any depth.
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted((set(ours) | set(theirs)) - ignore):
            if key not in ours or key not in theirs:
                yield f"{path}.{key}: only in one of the two"
            else:
                yield from differences(ours[key], theirs[key], tolerance, f"{path}.{key}", ignore)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} and {len(theirs)} entries"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(a, b, tolerance, f"{path}[{i}]", ignore)
    elif isinstance(ours, float | int) and isinstance(theirs, float | int):
        if abs(ours - theirs) > tolerance * (1 + abs(theirs)):
            yield f"{path}: {ours:.6g} and {theirs:.6g}"
    elif ours != theirs:
        yield f"{path}: {ours!r} and {theirs!r}"
