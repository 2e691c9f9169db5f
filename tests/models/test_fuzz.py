"""Whatever a file from a stranger says, the answer is a checkpoint within the file's bounds or one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.gguf_header import read_gguf_header
from firsttoken.models.safetensors_header import DTYPES
from small_gguf import small_llama, write_gguf
from tiny import tiny_model

T = TypeVar("T")
quick = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
numbers = st.one_of(
    st.integers(-3, 300), st.sampled_from([2**31, 2**40, 2**62, 2**64 - 1, 10**30, -(2**63)]), st.floats(), st.none()
)
scalars = st.one_of(numbers, st.booleans(), st.text(max_size=8), st.sampled_from(sorted(DTYPES)))
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
tensor = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*sorted(DTYPES), "F4", ""]) | anything,
        "shape": st.lists(st.integers(0, 5) | numbers, max_size=4) | anything,
        "data_offsets": st.lists(st.integers(0, 64) | numbers, min_size=2, max_size=2) | anything,
    }
)


def answer(ask: Callable[[], T]) -> T | None:
    """What was asked for, or None where it was refused in one line. Any other exception is a failure."""
    try:
        return ask()
    except FirstTokenError as error:
        said = str(error)
    assert said.strip()
    assert len(said.splitlines()) == 1
    return None


def consistent(folder: Path) -> None:
    """The checkpoint of a folder is refused in a sentence, or every tensor can be read as it is described."""
    checkpoint = answer(lambda: open_checkpoint(folder))
    if checkpoint is None:
        return
    assert checkpoint.bytes <= (folder / "model.safetensors").stat().st_size
    for name, entry in checkpoint.tensors.items():
        assert tuple(checkpoint.read(name).shape) == entry.shape


@quick
@given(
    header=st.dictionaries(st.text(max_size=6), tensor | anything, max_size=4) | anything,
    content=st.binary(max_size=64),
)
def test_headers_of_safetensors(tmp_path: Path, header: Any, content: bytes) -> None:
    raw = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + content)
    consistent(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    tiny_model("llama").save_pretrained(folder)
    gguf = write_gguf(folder / "a.gguf", small_llama()).read_bytes()
    return (folder / "model.safetensors").read_bytes(), gguf, json.loads((folder / "config.json").read_text())


edits = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=3)
kept = st.just(1.0) | st.floats(0, 1)


def damaged(content: bytes, header: int, where: list[tuple[float, bytes]], keep: float) -> bytes:
    """Some bytes of the first `header` overwritten, and the end cut off."""
    changed = bytearray(content)
    for place, new in where:
        start = int(place * header)
        changed[start : start + len(new)] = new
    return bytes(changed[: math.ceil(keep * len(changed))])


@quick
@given(where=edits, keep=kept)
def test_damaged_safetensors(tmp_path: Path, whole: Any, where: Any, keep: float) -> None:
    header = int.from_bytes(whole[0][:8], "little") + 8
    (tmp_path / "model.safetensors").write_bytes(damaged(whole[0], header, where, keep))
    consistent(tmp_path)


@quick
@given(where=edits, keep=kept)
def test_damaged_gguf(tmp_path: Path, whole: Any, where: Any, keep: float) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(damaged(whole[1], 9000, where, keep))
    header = answer(lambda: read_gguf_header(file))
    if header is None:
        return
    size = file.stat().st_size
    assert sum(tensor.bytes for tensor in header.tensors.values()) <= size
    assert all(tensor.start + tensor.bytes <= size for tensor in header.tensors.values())


@settings(quick, max_examples=80)
@given(draws=st.data())
def test_configurations(tmp_path: Path, whole: Any, draws: st.DataObject) -> None:
    told = dict(whole[2])
    for key in draws.draw(st.lists(st.sampled_from(sorted(told)), min_size=1, max_size=2, unique=True)):
        told[key] = draws.draw(anything)
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "model.safetensors").write_bytes(whole[0])

    def run() -> torch.Tensor:
        lm = models.load(str(tmp_path), device="cpu")
        with torch.no_grad():
            return lm.model(torch.tensor([[3, 4, 5]]), return_dict=True).logits

    logits = answer(run)
    assert logits is None or logits.shape == (1, 3, 97)


@settings(quick, max_examples=50)
@given(name=st.text(max_size=300))
def test_names(name: str) -> None:
    with pytest.raises(FirstTokenError):
        models.load("./" + name)
