"""Loading: the bundled models are what their table says, and every failure is one sentence."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from firsttoken import models, texts
from firsttoken.errors import FirstTokenError
from firsttoken.models.bundled import BUNDLED, gguf_file
from firsttoken.models.out_of_memory import explain_out_of_memory
from tiny import tiny_model


@pytest.mark.parametrize("name", BUNDLED)
def test_the_table_of_bundled_models_is_true(name: str) -> None:
    row, lm = BUNDLED[name], models.load(name)
    config = lm.model.config
    assert type(lm.model).__name__ == row.architecture
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (
        row.layers,
        row.heads,
        row.kv_heads,
    )
    assert lm.prepends_bos == row.bos.startswith("fixed")
    kinds = {tensor.tensor_type.name for tensor in GGUFReader(gguf_file(name)).tensors}
    assert row.quantisation.removesuffix("_M") in kinds
    assert lm.provenance()["quantisation"] == f"{row.quantisation}, dequantised"


def test_weights_equal_the_gguf_file_dequantised_by_its_own_library() -> None:
    lm = models.load("smollm2-135m")
    tensors = {tensor.name: tensor for tensor in GGUFReader(gguf_file("smollm2-135m")).tensors}
    for ours, theirs in (
        ("model.layers.3.mlp.down_proj.weight", "blk.3.ffn_down.weight"),
        ("model.layers.7.self_attn.v_proj.weight", "blk.7.attn_v.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
    ):
        tensor = tensors[theirs]
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        torch.testing.assert_close(lm.model.get_parameter(ours).data, expected, atol=0, rtol=0)


def test_slugs() -> None:
    from firsttoken.files import slug

    assert slug("meta-llama/Llama-3.1-8B") == "meta-llama-llama-3-1-8b"
    assert models.load("gemma3-270m").slug == "gemma3-270m"


def test_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    folder = tmp_path / "Tiny.Llama"
    tiny_model("llama").save_pretrained(folder)
    lm = models.load(str(folder))
    assert (lm.source, lm.slug, lm.quantisation) == ("folder", "tiny-llama", "none")
    assert lm.model.num_parameters() == tiny_model("llama").num_parameters()
    tiny_model("llama", seed=5).save_pretrained(tmp_path / "other")
    assert models.load(str(tmp_path / "other")).fingerprint != lm.fingerprint, "same layout, other weights"


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(FirstTokenError, match=r"no model: it has no config.json"):
        models.load(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FirstTokenError, match=r"no .safetensors files"):
        models.load(str(tmp_path))
    tiny_model("llama").save_pretrained(tmp_path)
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(FirstTokenError, match=r"truncated: it .*; download it again"):
        models.load(str(tmp_path))
    with pytest.raises(FirstTokenError, match="There is no folder"):
        models.load(str(tmp_path / "nowhere"))


def test_gguf_files(tmp_path: Path) -> None:
    with pytest.raises(FirstTokenError, match="There is no file"):
        models.load(str(tmp_path / "none.gguf"))
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a model")
    with pytest.raises(FirstTokenError, match="not a GGUF file or is damaged"):
        models.load(str(bad))
    bad.write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(FirstTokenError, match=r"bad.gguf is damaged"):
        models.load(str(bad))


def test_settings_that_do_not_exist() -> None:
    with pytest.raises(FirstTokenError, match="device must be auto, cpu, cuda or mps"):
        models.load("smollm2-135m", device="gpu")
    with pytest.raises(FirstTokenError, match="dtype must be auto, float32"):
        models.load("smollm2-135m", dtype="int8")
    with pytest.raises(FirstTokenError, match="parameter model is empty"):
        models.load_all(" , ")
    if not torch.cuda.is_available():
        with pytest.raises(FirstTokenError, match="no usable cuda device"):
            models.load("smollm2-135m", device="cuda")


def test_out_of_memory_names_what_to_lower() -> None:
    for error in (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ):
        expected = pytest.raises(FirstTokenError, match=r"Out of memory: lower length\.")
        with expected, explain_out_of_memory("lower length"):
            raise error
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory("lower length"):
        raise RuntimeError("shapes do not match")


# -- the hub, played by a server on this machine ------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[str]:
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            gated = "gated" in self.path
            self.send_response(403 if gated else 401)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *message: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def load_elsewhere(name: str, cache: Path, **environment: str) -> str:
    code = f"""
from firsttoken import models
from firsttoken.errors import FirstTokenError
try:
    models.load({name!r})
except FirstTokenError as error:
    print(error)
"""
    variables = {**os.environ, "HF_HOME": str(cache), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    return done.stdout


def test_gated_model(hub: str, tmp_path: Path) -> None:
    said = load_elsewhere("some-org/gated-model", tmp_path, HF_ENDPOINT=hub)
    assert "some-org/gated-model: this model is gated; accept its licence" in said
    assert "HF_TOKEN" in said


def test_unknown_model(hub: str, tmp_path: Path) -> None:
    said = load_elsewhere("some-org/no-such-model", tmp_path, HF_ENDPOINT=hub)
    assert "there is no such model on the hub" in said


def test_no_network(tmp_path: Path) -> None:
    said = load_elsewhere("some-org/model", tmp_path, HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached" in said
    assert "firsttoken models" in said


def test_not_even_a_name(tmp_path: Path) -> None:
    with pytest.raises(FirstTokenError, match=r"neither a bundled name|no such model"):
        models.load("smollm2_135m!")


def publish(cache: Path, commit: str, seed: int, branch: str = "main") -> None:
    """A commit of someone/model in the hub's cache folder."""
    repository = cache / "hub" / "models--someone--model"
    tiny_model("llama", seed=seed).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / branch).write_text(commit)


def test_the_hubs_commit_is_known_and_revisions_are_read(tmp_path: Path) -> None:
    publish(tmp_path, "a" * 40, 0)
    publish(tmp_path, "b" * 40, 1, "step1000")
    code = """
from firsttoken import models
for name in ("someone/model", "someone/model@step1000", "someone/model@" + 40 * "a"):
    lm = models.load(name, device="cpu")
    print(lm.fingerprint, lm.slug, float(lm.model.lm_head.weight.sum()))
"""
    variables = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "FIRSTTOKEN_RESULTS": str(tmp_path / "results"),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["a" * 40, "b" * 40, "a" * 40]
    assert [row[1] for row in rows] == ["someone-model", "someone-model-step1000", "someone-model-" + "a" * 40]
    for row, seed in zip(rows, (0, 1, 0), strict=True):
        assert float(row[2]) == pytest.approx(float(tiny_model("llama", seed=seed).lm_head.weight.sum()), rel=1e-4)
    said = load_elsewhere("someone/model@step2000", tmp_path, HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached" in said


def test_an_adapter_beside_weights_is_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FirstTokenError, match="has an adapter beside its weights; merge the two"):
        models.load(str(tmp_path))


def test_names_that_are_no_paths(tmp_path: Path) -> None:
    for name in ("", " ", "x" * 5000, "a/" + "x" * 300, "a\0b"):
        with pytest.raises(FirstTokenError, match="no name of a model"):
            models.load(name)
    with pytest.raises(FirstTokenError, match="cannot be followed"):
        models.load("~nosuchuser/x")
    tiny_model("llama").save_pretrained(tmp_path / "a,b")
    assert [lm.name for lm in models.load_all(str(tmp_path / "a,b"))] == [str(tmp_path / "a,b")]
    with pytest.raises(FirstTokenError, match="there are no tokenizer files"):
        _ = models.load(str(tmp_path / "a,b")).tokenizer


def test_folders_that_are_half_a_model(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(FirstTokenError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        models.load(str(tmp_path))
    for file in tmp_path.glob("*.safetensors"):
        file.rename(tmp_path / f"consolidated{file.name.removeprefix('model')}")
    with pytest.raises(FirstTokenError, match="the names of Mistral's own code"):
        models.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama",')
    with pytest.raises(FirstTokenError, match="it is not JSON"):
        models.load(str(tmp_path))
    (tmp_path / "config.json").rename(tmp_path / "adapter_config.json")
    with pytest.raises(FirstTokenError, match="is an adapter"):
        models.load(str(tmp_path))


def test_a_path_object_is_a_name(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    assert models.load(tmp_path).fingerprint == models.load(str(tmp_path)).fingerprint


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_a_folder_with_the_name_of_a_model_of_the_book_has_to_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tiny_model("llama").save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FirstTokenError, match=rf"and a folder here: give \./{re.escape(name)} for the folder"):
        models.load(name)
    assert models.load(f"./{name}").source == "folder"


@pytest.mark.parametrize(
    "settings",
    [{"name": b"x"}, {"name": None}, {"name": 5}, {"device": None}, {"device": "cpu:7"}, {"device": "cpu:x"},
     {"dtype": ["float32"]}, {"trust_remote_code": "false"}, {"trust_remote_code": None}],
)  # fmt: skip
def test_settings_of_another_type(settings: dict[str, Any]) -> None:
    with pytest.raises(FirstTokenError) as said:
        models.load(**{"name": "smollm2-135m", **settings})
    assert len(str(said.value).splitlines()) == 1


def test_a_device_may_be_torchs_own() -> None:
    assert models.load("smollm2-135m", device=torch.device("cpu")).device == "cpu"
    for source in (None, ["passages"], 3):
        with pytest.raises(FirstTokenError, match="names no texts"):
            texts.texts_from(source)  # type: ignore[arg-type]
