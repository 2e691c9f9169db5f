"""Loading: the bundled models are what their table says, and every failure is one sentence."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from firsttoken import models
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


def test_local_folder(tmp_path: Path) -> None:
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
    with pytest.raises(FirstTokenError, match="truncated; download it again"):
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
    with pytest.raises(FirstTokenError, match=r"bad.gguf: it could not be loaded"):
        _ = models.load(str(bad)).model


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
