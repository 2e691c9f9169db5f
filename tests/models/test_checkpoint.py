"""Damaged checkpoints are one clear sentence before anything is computed; sizes are those of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from firsttoken.errors import FirstTokenError
from firsttoken.models.checkpoint import INDEX, open_checkpoint
from tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def second(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[1]


def test_tensors_are_what_safetensors_reads(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    files = sorted(folder.glob("*.safetensors"))
    assert checkpoint.shards == files
    expected = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert checkpoint.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(checkpoint.read(name), tensor, atol=0, rtol=0)
    assert checkpoint.bytes_read == checkpoint.bytes == sum(t.numel() * t.element_size() for t in expected.values())
    assert checkpoint.parameters() == sum(t.numel() for t in expected.values())
    # Headers are all that the files hold besides.
    assert 0 < sum(file.stat().st_size for file in files) - checkpoint.bytes < 4000 * len(files)


def test_a_missing_shard(folder: Path) -> None:
    second(folder).unlink()
    with pytest.raises(FirstTokenError, match=r"lacks 1 of \d+ weight files, the first model-00002"):
        open_checkpoint(folder)


@pytest.mark.parametrize("kept", [0.99, 0.2, 0.0])
def test_a_truncated_shard(folder: Path, kept: float) -> None:
    content = second(folder).read_bytes()
    second(folder).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FirstTokenError, match="is truncated"):
        open_checkpoint(folder)


def test_an_error_page_instead_of_a_shard(folder: Path) -> None:
    second(folder).write_bytes((20).to_bytes(8, "little") + b"<html>not found</html>")
    with pytest.raises(FirstTokenError, match="is damaged or is no safetensors file"):
        open_checkpoint(folder)


def test_an_index_that_promises_more_than_the_shard_holds(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = second(folder).name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(FirstTokenError, match=r"lacks model\.layers\.9\.mlp\.up_proj\.weight"):
        open_checkpoint(folder)
    (folder / INDEX).write_text("{")
    with pytest.raises(FirstTokenError, match="is damaged"):
        open_checkpoint(folder)


def test_a_tensor_that_the_index_leaves_out_is_read_all_the_same(folder: Path) -> None:
    """As transformers does, which reads whole shards; else a streamed pass would compute something else."""
    index = json.loads((folder / INDEX).read_text())
    left_out = next(name for name in index["weight_map"] if "up_proj" in name)
    del index["weight_map"][left_out]
    before = open_checkpoint(folder).tensors
    (folder / INDEX).write_text(json.dumps(index))
    assert open_checkpoint(folder).tensors == before
    assert left_out in before


def test_a_tensor_that_two_shards_hold_is_one_or_refused(folder: Path) -> None:
    first, other = sorted(folder.glob("*.safetensors"))[:2]
    name, tensor = next(iter(load_file(first).items()))
    own = load_file(other)
    save_file(own | {name: tensor}, other)
    assert torch.equal(open_checkpoint(folder).read(name), tensor)  # twice the same
    save_file(own | {name: tensor + 1}, other)
    with pytest.raises(FirstTokenError, match=f"hold different {name}, and which of the two counts is chance"):
        open_checkpoint(folder)


def test_pickled_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FirstTokenError, match=r"no weights in safetensors; .* only pytorch_model\.bin, whose pickled"):
        open_checkpoint(tmp_path)
