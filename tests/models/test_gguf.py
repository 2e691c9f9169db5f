"""GGUF files: the model and the tokens that llama.cpp would run, or one sentence and nothing in the cache."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder
from firsttoken.models.gguf_conversion import adds_bos
from firsttoken.models.gguf_header import GgufHeader, read_gguf_header
from small_gguf import small_llama, tensors_of, write_gguf

IDS = torch.arange(3, 43)[None]
pytestmark = pytest.mark.usefixtures("own_cache")


def test_the_header_is_what_was_written(tmp_path: Path) -> None:
    model = small_llama()
    header = read_gguf_header(write_gguf(tmp_path / "a.gguf", model))
    expected = tensors_of(model)
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {k: v.shape for k, v in expected.items()}
    raw = (tmp_path / "a.gguf").read_bytes()
    for name, tensor in header.tensors.items():
        there = np.frombuffer(raw[tensor.start : tensor.start + tensor.bytes], np.float32)
        np.testing.assert_array_equal(there, expected[name].ravel())
    assert (header.architecture, header.kinds, header.keys["tokenizer.ggml.pre"]) == ("llama", "F32", "llama-bpe")


def test_rotary_factors_are_used_and_bos_follows_llama_cpp(tmp_path: Path) -> None:
    rope = dict(
        rope_type="llama3",
        rope_theta=5e5,
        factor=32.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    model = small_llama(rope_parameters=rope)
    plain = 5e5 ** -(torch.arange(0, 8, 2) / 8)
    factors = (plain / model.model.rotary_emb.inv_freq).numpy()
    file = write_gguf(tmp_path / "LLAMA31.GGUF", model, tensors_of(model) | {"rope_freqs.weight": factors})
    lm = models.load(str(file), device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(lm.model(IDS).logits, model(IDS).logits, atol=2e-5, rtol=1e-4)
        without = small_llama()(IDS).logits
    assert (without - model(IDS).logits).abs().max() > 0.01, "the factors matter at this length"
    # No key says whether there is a BOS token.
    assert lm.prefix("auto") == [0]
    assert lm.tokenizer.convert_ids_to_tokens(lm.tokenizer("the").input_ids) == ["<|begin|>", "the"]
    assert lm.quantisation == "GGUF (F32), dequantised"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"model": "gpt2", "pre": "llama-bpe"}, True),
        ({"model": "gpt2", "pre": "tekken"}, True),
        ({"model": "gpt2", "pre": "qwen2"}, False),
        ({"model": "gpt2"}, False),
        ({"model": "llama"}, True),
        ({"model": "t5"}, False),
        ({"model": "gpt2", "pre": "llama-bpe", "add_bos_token": False}, False),
        ({"model": "gpt2", "pre": "qwen2", "add_bos_token": True}, True),
    ],
)
def test_who_gets_a_bos_token(keys: dict[str, object], expected: bool) -> None:
    header = GgufHeader(keys={f"tokenizer.ggml.{key}": value for key, value in keys.items()}, tensors={})
    assert adds_bos(header) is expected


def test_parts_of_a_split_file(tmp_path: Path) -> None:
    model = small_llama()
    tensors = tensors_of(model)
    for part in range(2):
        file = tmp_path / f"m-0000{part + 1}-of-00002.gguf"
        half = dict(list(tensors.items())[part::2])
        write_gguf(
            file, model, half, keys=[lambda w, n=part: (w.add_uint16("split.no", n), w.add_uint16("split.count", 2))]
        )
        with pytest.raises(FirstTokenError, match="one of 2 parts of a model; join them"):
            models.load(str(file))


def test_missing_tensors_leave_nothing_behind(tmp_path: Path) -> None:
    model = small_llama()
    tensors = tensors_of(model)
    del tensors["blk.1.attn_v.weight"]
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", model, tensors)))
    for _ in range(2):
        with pytest.raises(FirstTokenError, match=r"lacks 1 .*model\.layers\.1\.self_attn\.v_proj\.weight"):
            _ = lm.model
        assert [path.name for path in cache_folder().iterdir()] in ([], ["fingerprints"])


def test_damaged_files(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "a.gguf", small_llama()).read_bytes()
    bad = tmp_path / "bad.gguf"
    first_key = struct.unpack_from("<Q", whole, 24)[0]
    kinds = {
        "truncated": whole[:-100],
        "promises": whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:],
        "promises 18446744073709551615": whole[:24] + struct.pack("<Q", (1 << 64) - 1) + whole[32:],
        "unknown type 77": whole[: 32 + first_key] + struct.pack("<I", 77) + whole[36 + first_key :],
        "version 9": whole[:4] + struct.pack("<I", 9) + whole[8:],
        "damaged": whole[:200],
        "not a GGUF file": b"",
    }
    for said, data in kinds.items():
        bad.write_bytes(data)
        with pytest.raises(FirstTokenError, match=said):
            models.load(str(bad))
