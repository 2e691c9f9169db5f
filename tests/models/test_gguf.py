"""GGUF files: the model and the tokens that llama.cpp would run, or one sentence and nothing in the cache."""

from __future__ import annotations

import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFValueType,
    GGUFWriter,
    RopeScalingType,
    quants,
)
from transformers import PreTrainedModel

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder
from firsttoken.models import gguf_conversion
from firsttoken.models.gguf_conversion import adds_bos
from firsttoken.models.gguf_header import GgufHeader, read_gguf_header
from firsttoken.models.gguf_reading import PlainReader, parsed_once
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


def test_a_file_is_read_through_plain_arrays_as_the_package_reads_it(tmp_path: Path) -> None:
    model = small_llama()
    file = write_gguf(tmp_path / "m.gguf", model, tensors_of(model))
    theirs, ours = GGUFReader(file), PlainReader(file)
    assert not isinstance(ours.tensors[0].data, np.memmap)
    assert list(ours.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        same = ours.fields[name]
        assert (same.offset, same.data, same.types) == (field.offset, field.data, field.types), name
        assert all(np.array_equal(one, other) for one, other in zip(same.parts, field.parts, strict=True)), name
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, one.tensor_type, one.data_offset) == (other.name, other.tensor_type, other.data_offset)
        assert np.array_equal(one.data, other.data)


def test_a_file_is_parsed_once(tmp_path: Path) -> None:
    model = small_llama()
    file = write_gguf(tmp_path / "m.gguf", model, tensors_of(model))
    with parsed_once():
        assert gguf.GGUFReader(file) is gguf.GGUFReader(str(file))
        assert gguf.GGUFReader(file, "c").data.flags.writeable
    assert gguf.GGUFReader is GGUFReader


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


KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


@pytest.mark.parametrize("kind", KINDS)
def test_every_quantisation_is_dequantised_as_the_format_says(tmp_path: Path, kind: str) -> None:
    """Against the numbers that the `gguf` package itself makes of the same bytes."""
    model, type_ = small_llama(intermediate_size=64), GGMLQuantizationType[kind]
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", model, kind=type_)))
    loaded = tensors_of(lm.model)
    changed = 0
    for name, array in tensors_of(model).items():
        expected = array
        if array.ndim > 1:
            expected = quants.dequantize(quants.quantize(np.ascontiguousarray(array), type_), type_)
        np.testing.assert_array_equal(loaded[name], expected, err_msg=name)
        changed += not np.array_equal(expected, array)
    assert (changed == 0) == (kind == "F32")
    assert kind in lm.quantisation


# Kinds that the `gguf` package turns into numbers and does not make; their blocks are of 256 numbers.
READ_ONLY = (
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S",
    "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4",
)  # fmt: skip


@pytest.mark.parametrize("kind", READ_ONLY)
def test_every_quantisation_of_llama_cpp_is_read_as_the_format_says(tmp_path: Path, kind: str) -> None:
    """Blocks of random bytes, small enough that every half-precision scale in them is a number."""
    if kind not in GGMLQuantizationType.__members__:
        pytest.skip(f"the installed gguf package does not know {kind}")
    type_ = GGMLQuantizationType[kind]
    size, bytes_ = GGML_QUANT_SIZES[type_]
    model = small_llama(hidden_size=256, intermediate_size=256, head_dim=64, num_key_value_heads=4)
    generator = np.random.default_rng(0)
    blocks = {
        name: generator.integers(0, 0x3C, (array.shape[0], array.shape[1] // size * bytes_), dtype=np.uint8)
        for name, array in tensors_of(model).items()
        if array.ndim > 1
    }
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", model, kind=type_, blocks=blocks)))
    loaded = tensors_of(lm.model)
    for name, block in blocks.items():
        expected = quants.dequantize(block, type_)
        assert np.isfinite(expected).all()
        assert len(np.unique(expected)) > 8
        np.testing.assert_array_equal(loaded[name], expected, err_msg=name)
    assert kind in lm.quantisation


def split(folder: Path, model: PreTrainedModel, count: int = 3, **promised: int) -> list[Path]:
    """A model in parts, as llama-gguf-split leaves it: only the first has more keys than those on the split."""
    tensors = tensors_of(model)
    parts = []
    for number in range(count):
        part = folder / f"m-{number + 1:05}-of-{count:05}.gguf"
        own = dict(list(tensors.items())[number::count])

        def said(writer: GGUFWriter, number: int = number) -> None:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", count)
            writer.add_int32("split.tensors.count", promised.get("tensors", len(tensors)))

        if number == 0:
            write_gguf(part, model, own, keys=[said])
        else:
            writer = GGUFWriter(str(part), "llama")
            said(writer)
            for name, array in own.items():
                writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        parts.append(part)
    return parts


@pytest.mark.parametrize("named", [0, 2])
def test_parts_of_a_split_file_are_one_model(tmp_path: Path, named: int) -> None:
    model = small_llama()
    parts = split(tmp_path, model)
    lm = models.load(str(parts[named]))
    assert lm.prefix("auto") == models.load(str(write_gguf(tmp_path / "whole.gguf", model))).prefix("auto")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(lm.model.state_dict()[name], weight, msg=name)
    assert models.load(str(parts[0])).provenance()["fingerprint"] == lm.provenance()["fingerprint"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda parts: parts[1].unlink(), r"m-00002-of-00003\.gguf is not beside it"),
        (
            lambda parts: (parts[0].unlink(), parts[1].unlink()),
            r"m-00001-of-00003\.gguf, m-00002-of-00003\.gguf are not",
        ),
        (lambda parts: shutil.copy(parts[2], parts[1]), "is named part 2 of 3 and says that it is another"),
        (lambda parts: parts[1].write_bytes(parts[1].read_bytes()[:-100]), "is truncated"),
    ],
)
def test_parts_that_do_not_make_a_model(tmp_path: Path, harm: Callable[[list[Path]], object], message: str) -> None:
    parts = split(tmp_path, small_llama())
    harm(parts)
    with pytest.raises(FirstTokenError, match=message):
        models.load(str(parts[-1]))
    assert not list((cache_folder() / "joined").glob("*")) if cache_folder().exists() else True


def test_parts_of_two_models(tmp_path: Path) -> None:
    with pytest.raises(FirstTokenError, match="hold 21 of 22 tensors"):
        models.load(str(split(tmp_path, small_llama(), tensors=22)[0]))


def test_a_part_under_another_name(tmp_path: Path) -> None:
    part = split(tmp_path, small_llama())[0].rename(tmp_path / "first.gguf")
    with pytest.raises(FirstTokenError, match="one of 3 parts of a model, and its name does not say which"):
        models.load(str(part))


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
    for said, content in kinds.items():
        bad.write_bytes(content)
        with pytest.raises(FirstTokenError, match=said):
            models.load(str(bad))


def scaling(kind: str, factor: float = 4.0) -> list[Callable[[GGUFWriter], None]]:
    return [
        lambda writer: writer.add_rope_scaling_type(RopeScalingType(kind)),
        lambda writer: writer.add_rope_scaling_factor(factor),
        lambda writer: writer.add_rope_scaling_orig_ctx_len(64),
    ]


FACTORS = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
FURTHER: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "a bias": ({"blk.1.attn_q.bias": np.ones(32)}, r"1 of the file's tensors \(blk\.1\.attn_q\.bias\) have no place"),
    "a norm": ({f"blk.{i}.attn_q_norm.weight": np.ones(8) for i in (0, 1)}, r"2 of .*blk\.0\.attn_q_norm\.weight, "),
    "of the head": ({"output.bias": np.ones(258)}, r"1 of .*\(output\.bias\)"),
    "a third layer": ({"blk.2.attn_norm.weight": np.ones(32)}, r"1 of .*\(blk\.2\.attn_norm\.weight\)"),
    "another shape": ({"blk.1.attn_q.weight": np.ones((16, 32))}, r"blk\.1\.attn_q\.weight has the shape \[16, 32\]"),
    "long factors alone": ({"rope_factors_long.weight": FACTORS}, r"has rope_factors_long\.weight and lacks rope_f"),
    "unlike layers": (
        {"blk.0.rope_freqs.weight": np.ones(4), "blk.1.rope_freqs.weight": FACTORS},
        r"differ between layers \(blk\.1\.rope_freqs\.weight\)",
    ),
    "nan": ({"rope_freqs.weight": FACTORS * np.nan}, r"rope_freqs\.weight has factors that are no positive numbers"),
    "zero": ({"rope_freqs.weight": FACTORS * 0}, r"rope_freqs\.weight has factors that are no positive numbers"),
}


@pytest.mark.parametrize("kind", FURTHER)
def test_tensors_that_would_be_passed_over_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    model, (further, said) = small_llama(), FURTHER[kind]
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", model, tensors_of(model) | further)))
    with pytest.raises(FirstTokenError, match=said):
        _ = lm.model
    assert [path.name for path in cache_folder().iterdir()] in ([], ["fingerprints"])


def test_tensors_that_a_text_does_not_need_are_noted(tmp_path: Path) -> None:
    model = small_llama()
    further = {"blk.0.attn_rot_embd.weight": np.ones(4), "v.patch_embd.weight": np.ones((4, 4))}
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", model, tensors_of(model) | further)))
    with torch.no_grad():
        torch.testing.assert_close(lm.model(IDS).logits, model(IDS).logits)
    assert lm.provenance()["weights"]["ignored"] == sorted(further)


KEYS: dict[str, tuple[list[Callable[[GGUFWriter], None]], str]] = {
    "causal": ([lambda writer: writer.add_causal_attention(False)], r"llama\.attention\.causal = False"),
    "scale": (
        [lambda writer: writer.add_attention_scale(0.01)],
        r"attention\.scale = 0\.00999.*computes with 0\.3536",
    ),
    "clamp": ([lambda writer: writer.add_clamp_kqv(0.5)], r"attention\.clamp_kqv = 0\.5"),
    "logits": ([lambda writer: writer.add_logit_scale(0.1)], r"logit_scale = 0\.1"),
    "cap": ([lambda writer: writer.add_attn_logit_softcapping(5.0)], r"attn_logit_softcapping = 5\.0"),
    "window": ([lambda writer: writer.add_sliding_window(4)], r"attention\.sliding_window = 4, .* with None"),
    "yarn": ([*scaling("yarn"), lambda writer: writer.add_rope_scaling_attn_factors(0.5)], r"attn_factor = 0\.5"),
    "multiplier": ([*scaling("yarn"), lambda w: w.add_rope_scaling_yarn_log_mul(0.5)], r"yarn_log_multiplier = 0\.5"),
    "nan": (scaling("linear", math.nan), "by the factor nan; it is damaged"),
    "inf": (scaling("linear", math.inf), "by the factor inf; it is damaged"),
    "negative": (scaling("linear", -2.0), r"by the factor -2\.0; it is damaged"),
    "yarn by nothing": (scaling("yarn", 0.0), r"by the factor 0\.0; it is damaged"),
    "unsaid": ([lambda writer: writer.add_rope_scaling_factor(4.0)], "by the factor 4 and does not say how"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_that_would_be_passed_over_are_refused(tmp_path: Path, kind: str) -> None:
    keys, said = KEYS[kind]
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", small_llama(), keys=keys)))
    with pytest.raises(FirstTokenError, match=said):
        _ = lm.model


def test_a_file_may_name_both_numbers_of_norms(tmp_path: Path) -> None:
    """As converters write it where a configuration has both."""
    model = small_llama()
    lm = models.load(write_gguf(tmp_path / "a.gguf", model, keys=[lambda writer: writer.add_layer_norm_eps(1e-2)]))
    with torch.no_grad():
        torch.testing.assert_close(lm.model(IDS).logits, model(IDS).logits)


def no_epsilon(writer: GGUFWriter) -> None:
    del writer.kv_data[0]["llama.attention.layer_norm_rms_epsilon"]


def million_tokens(writer: GGUFWriter) -> None:
    writer.kv_data[0]["tokenizer.ggml.tokens"].value = [""] * 1_000_000


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (no_epsilon, r"does not say what its norms add under the root \(attention\.layer_norm_rms_epsilon\)"),
        (million_tokens, "lists 1000000 tokens and holds 260 embeddings; the two do not belong together"),
        (
            lambda writer: writer.kv_data[0]["llama.rope.freq_base"].__init__(value="a", type=GGUFValueType.STRING),
            "says llama.rope.freq_base = 'a', which is no number",
        ),
        (lambda writer: writer.add_block_count(9000), "tensors, too few for the 9000 layers of its configuration"),
    ],
)
def test_what_does_not_fit_together_is_refused_at_once(
    tmp_path: Path, key: Callable[[GGUFWriter], None], said: str
) -> None:
    def instead(writer: GGUFWriter) -> None:
        if "9000" in said:
            del writer.kv_data[0]["llama.block_count"]
        key(writer)

    lm = models.load(str(write_gguf(tmp_path / "a.gguf", small_llama(), keys=[instead])))
    start = time.process_time()
    with pytest.raises(FirstTokenError, match=said):
        _ = lm.model
    assert time.process_time() - start < 10


def test_many_missing_parts_are_not_all_named(tmp_path: Path) -> None:
    part = write_gguf(tmp_path / "m-00001-of-99999.gguf", small_llama())
    with pytest.raises(FirstTokenError, match=r"00004-of-99999\.gguf and 99995 more are not beside it"):
        models.load(part)


def test_keys_that_change_nothing_pass(tmp_path: Path) -> None:
    model = small_llama()
    keys: list[Callable[[GGUFWriter], None]] = [
        lambda writer: writer.add_causal_attention(True),
        lambda writer: writer.add_attention_scale(8**-0.5),
        lambda writer: writer.add_clamp_kqv(0.0),
        lambda writer: writer.add_logit_scale(1.0),
        lambda writer: writer.add_sliding_window(model.config.max_position_embeddings),
        *scaling("linear", 0.0),  # llama.cpp takes it for none
    ]
    lm = models.load(str(write_gguf(tmp_path / "a.gguf", model, keys=keys)))
    with torch.no_grad():
        torch.testing.assert_close(lm.model(IDS).logits, model(IDS).logits)


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[1:2]
from firsttoken import models
from firsttoken.models import gguf_conversion

gguf_conversion._stretch = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
_ = models.load(sys.argv[2]).config
"""


def test_what_a_killed_conversion_left_goes_with_the_next_one(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "a.gguf", small_llama())
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(file)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGTERM
    left = {path.name.split("-")[0] for path in cache_folder().glob(".*")}
    assert left == {".dequantising", ".gguf"}
    living = cache_folder() / f".gguf-{gguf_conversion._OWN}{os.getpid()}-x"
    elsewhere = cache_folder() / ".gguf-anothermachine-999999999-x"
    living.mkdir(), elsewhere.mkdir()
    _ = models.load(str(file)).config
    assert sorted(cache_folder().glob(".*")) == sorted([living, elsewhere])
