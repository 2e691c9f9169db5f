"""A model is what its file says, or it is refused: compared here with the model that was saved, and by leaving out,
renaming and reshaping what was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.execution.streaming import StreamedModel
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.weight_check import check_weights, meta_model
from tiny import ARCHITECTURES, tiny_model

Tensors = dict[str, Tensor]
IDS = torch.arange(3, 15)[None]


def changed(folder: Path, change: Callable[[Tensors], Tensors], name: str = "llama") -> models.LanguageModel:
    tiny_model(name).save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    return models.load(str(folder), device="cpu")


def logits(lm: models.LanguageModel) -> Tensor:
    with torch.no_grad():
        return lm.model(IDS).logits


def streamed(lm: models.LanguageModel) -> Tensor:
    out = StreamedModel(lm).run(IDS, lambda layer, hidden: None, reduce_logits=lambda x: x)
    assert out.head is not None
    return out.head


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_transformers_saves_is_complete(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    model.save_pretrained(tmp_path)
    weights = check_weights("it", open_checkpoint(tmp_path), meta_model(model.config))
    assert weights.wrappers == weights.ignored == ()
    # The table of positions is where the model fails if it has one.
    limit = weights.positions or 0
    ids = torch.zeros(1, limit + 1, dtype=torch.int64)
    if limit:
        assert model(ids[:, :-1]).logits.shape[1] == limit
        with pytest.raises((IndexError, RuntimeError)):
            model(ids)


@pytest.mark.parametrize(
    "rename",
    [
        lambda k: f"_orig_mod.{k}",
        lambda k: f"module.{k}",
        lambda k: f"module._orig_mod.{k}",
        lambda k: k.replace("layers.1.", "layers.1._orig_mod."),
        lambda k: "_orig_mod." + k.replace("layers.2.", "layers.2._checkpoint_wrapped_module."),
        lambda k: k.replace(".self_attn.", "._fsdp_wrapped_module.self_attn._orig_mod."),
    ],
)
def test_names_of_wrapped_models_are_read_and_noted(rename: Callable[[str], str], tmp_path: Path) -> None:
    lm = changed(tmp_path, lambda tensors: {rename(key): value for key, value in tensors.items()})
    with torch.no_grad():
        expected = tiny_model("llama")(IDS).logits
    for way in (logits, streamed):
        torch.testing.assert_close(way(lm), expected, atol=1e-5, rtol=1e-5)
    assert "names without" in lm.provenance()["weights"]["mapped"]


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if not any(part in key for part in parts)}


@pytest.mark.parametrize("way", [logits, streamed])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(".layers.2."), r"lacks 9 of the model's parameters \(model\.layers\.2\..* and 6 more\)"),
        (without("layers.1.self_attn.q_proj"), r"lacks 1 .*model\.layers\.1\.self_attn\.q_proj\.weight"),
        (without("lm_head"), r"lacks 1 .*lm_head\.weight"),
        (without("model.norm"), r"lacks 1 .*model\.norm\.weight"),
        (lambda t: t | {"model.norm.weight": torch.ones(31)}, r"another shape.*model\.norm\.weight with \[31\]"),
        (lambda t: t | {"_orig_mod.model.norm.weight": torch.ones(32)}, r"twice.*model\.norm\.weight"),
        (lambda t: {f"other.{key}": value for key, value in t.items()}, "lacks 39 of the model's parameters"),
    ],
)
def test_what_would_be_random_is_refused_by_name(
    change: Callable[[Tensors], Tensors], said: str, way: Callable[[models.LanguageModel], Tensor], tmp_path: Path
) -> None:
    lm = changed(tmp_path, change)
    with pytest.raises(FirstTokenError, match=said):
        way(lm)


def test_tensors_without_a_place_are_named(tmp_path: Path) -> None:
    extra = {"model.layers.4.mtp.weight": torch.ones(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    lm = changed(tmp_path, lambda tensors: tensors | extra)
    assert lm.provenance()["weights"] == {"checked": False}, "nothing was compared yet"
    logits(lm)
    # Old files of Llama hold rotary frequencies, which the class itself says to leave out.
    assert lm.provenance()["weights"] == {
        "checked": True,
        "ignored": ["model.layers.4.mtp.weight"],
        "ignored_count": 1,
    }


@pytest.mark.parametrize("way", [logits, streamed])
def test_a_head_that_is_said_to_be_tied(way: Callable[[models.LanguageModel], Tensor], tmp_path: Path) -> None:
    def tie(tensors: Tensors, head: Tensor) -> models.LanguageModel:
        save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors", {"format": "pt"})
        return models.load(str(tmp_path), device="cpu")

    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"tie_word_embeddings": True}))
    tensors = load_file(tmp_path / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    model.lm_head.weight.data = embeddings
    with torch.no_grad():
        expected = model(IDS).logits
    torch.testing.assert_close(way(tie(tensors, embeddings.clone())), expected, atol=1e-5, rtol=1e-5)
    other = embeddings.clone()
    other[5, 3] += 0.001
    with pytest.raises(
        FirstTokenError, match=r"ties lm_head\.weight to model\.embed_tokens\.weight, but the file holds two"
    ):
        way(tie(tensors, other))


@pytest.mark.parametrize("way", [logits, streamed])
@pytest.mark.parametrize("named", [None, "other.safetensors", "other.safetensors.index.json"])
def test_the_files_that_are_checked_are_those_that_transformers_reads(
    named: str | None, way: Callable[[models.LanguageModel], Tensor], tmp_path: Path
) -> None:
    """A single file beside an index, and a file that config.json names: one choice everywhere."""
    index, single = tiny_model("llama"), tiny_model("llama")
    with torch.no_grad():
        single.model.norm.weight.mul_(2.0)
        expected, of_index = single(IDS).logits, index(IDS).logits
    index.save_pretrained(tmp_path, max_shard_size="20KB")
    if named is not None:
        told = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(told | {"transformers_weights": named}))
    if named == "other.safetensors.index.json":
        (tmp_path / "model.safetensors.index.json").rename(tmp_path / named)
        expected = of_index
        single.model.norm.weight.data.mul_(3.0)
    save_file(single.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    if named == "other.safetensors":
        (tmp_path / "model.safetensors").rename(tmp_path / named)
    lm = models.load(str(tmp_path), device="cpu")
    torch.testing.assert_close(way(lm), expected, atol=1e-5, rtol=1e-5)
    read = tmp_path / (named or "model.safetensors")
    if read.suffix == ".safetensors":
        single.model.norm.weight.data.mul_(2.0)
        save_file(single.state_dict(), read, {"format": "pt"})
        assert models.load(str(tmp_path)).fingerprint != lm.fingerprint


@pytest.mark.parametrize("named", ["../x.safetensors", "x.bin", 3, "absent.safetensors"])
def test_weights_elsewhere_are_refused(named: object, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"transformers_weights": named}))
    with pytest.raises(FirstTokenError, match="says that the weights are in"):
        models.load(str(tmp_path))


@pytest.mark.parametrize("way", [logits, streamed])
@pytest.mark.parametrize(("dtype", "spelt"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_coded_numbers_without_their_code_are_refused(
    dtype: torch.dtype, spelt: str, way: Callable[[models.LanguageModel], Tensor], tmp_path: Path
) -> None:
    key = "model.layers.1.self_attn.q_proj.weight"
    lm = changed(tmp_path, lambda tensors: tensors | {key: (tensors[key] * 100).to(dtype)})
    with pytest.raises(FirstTokenError, match=rf"1 of the file's tensors .*q_proj\.weight of type {spelt}"):
        way(lm)


@pytest.mark.parametrize("way", [logits, streamed])
def test_of_two_tied_tensors_either_may_be_in_the_file(
    way: Callable[[models.LanguageModel], Tensor], tmp_path: Path
) -> None:
    model = tiny_model("llama")
    lm = changed(tmp_path, without("embed_tokens"))
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"tie_word_embeddings": True}))
    model.model.embed_tokens.weight = model.lm_head.weight
    with torch.no_grad():
        expected = model(IDS).logits
    lm = models.load(str(tmp_path), device="cpu")
    torch.testing.assert_close(way(lm), expected, atol=1e-5, rtol=1e-5)
