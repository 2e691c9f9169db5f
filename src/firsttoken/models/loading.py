"""Load any causal language model by one name, with one clear sentence where that is not possible.

>>> lm = load("smollm2-135m")                 # bundled with the package index, nothing to download
>>> lm = load("meta-llama/Llama-3.1-8B")      # the Hugging Face hub
>>> lm = load("./checkpoints/mine")           # a folder with config.json and safetensors
>>> lm = load("./model.Q4_K_M.gguf")          # llama.cpp's format, dequantised on loading
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, slug
from firsttoken.models.bundled import BUNDLED, gguf_file
from firsttoken.models.loading_errors import explain_loading
from firsttoken.models.out_of_memory import explain_out_of_memory

BosPolicy = Literal["auto", "always", "never"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM and its tokenizer, found but not yet in memory: weights are read at the first use of `.model`.

    `fingerprint` identifies the weights: the sha256 of a .gguf file, the hub's commit, or a hash of a folder's
    configuration and tensor headers.
    """

    name: str
    source: Literal["bundled", "gguf", "folder", "hub"]
    path: str  # what `from_pretrained` gets
    gguf: str | None  # the file inside `path`, for GGUF
    fingerprint: str
    quantisation: str
    dtype: str
    device: str
    device_map: str | None = None
    trust_remote_code: bool = False

    @property
    def slug(self) -> str:
        """The name in file names and in `{result}` keys."""
        if self.source in ("gguf", "folder"):
            return slug(Path(self.name).name.removesuffix(".gguf"))
        return slug(self.name)

    def provenance(self) -> dict[str, Any]:
        """What a record says about the model it measured."""
        fields = ("name", "source", "fingerprint", "quantisation", "dtype", "device")
        return {name: getattr(self, name) for name in fields}

    @cached_property
    def tokenizer(self) -> Any:
        with explain_loading(self.name):
            return AutoTokenizer.from_pretrained(_weights_folder(self), **_remote(self))

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The model's configuration, without its weights."""
        with explain_loading(self.name):
            return AutoConfig.from_pretrained(_weights_folder(self), **_remote(self))

    def local_folder(self) -> Path:
        """The folder with the configuration and the safetensors; a hub model's are downloaded first."""
        if self.source != "hub":
            return Path(_weights_folder(self))
        patterns = ["*.json", "*.safetensors"]
        with explain_loading(self.name):
            return Path(snapshot_download(self.path, revision=_remote(self)["revision"], allow_patterns=patterns))

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model in evaluation mode on its device."""
        place: dict[str, Any] = {"device_map": self.device_map or {"": self.device}}
        remedy = "give a smaller dtype (bfloat16), device_map='auto', or a smaller model"
        quiet = no_progress_bar() if self.gguf else nullcontext()
        with explain_loading(self.name), explain_out_of_memory(remedy), quiet:
            model = AutoModelForCausalLM.from_pretrained(
                _weights_folder(self),
                dtype=DTYPES[self.dtype],
                use_safetensors=True,
                **place,
                **_remote(self),
            )
        return model.eval()

    @cached_property
    def prepends_bos(self) -> bool:
        """Whether the tokenizer itself puts its beginning-of-sequence token first: the policy `auto`."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("a").input_ids[:1] == [bos]

    def prefix(self, bos: BosPolicy) -> list[int]:
        """The tokens that go before a text under a BOS policy: one BOS token or nothing."""
        if bos not in ("auto", "always", "never"):
            raise FirstTokenError(f"bos must be auto, always or never, not {bos!r}.")
        if bos == "never" or (bos == "auto" and not self.prepends_bos):
            return []
        if self.tokenizer.bos_token_id is None:
            raise FirstTokenError(f"{self.name} has no BOS token in its tokenizer; use bos='auto' or 'never'.")
        return [self.tokenizer.bos_token_id]


def load(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Find a model by bundled name, `.gguf` file, local folder or hub id.

    Args:
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, bfloat16 on a GPU.
        device: `cpu`, `cuda`, `mps`, or `auto`: the first of cuda, mps, cpu that exists.
        device_map: passed to transformers, e.g. `auto` to spread a large model over several GPUs.
        trust_remote_code: run Python code from the model's repository. Weights come from safetensors in any case.

    Raises:
        FirstTokenError: unknown, gated, unreachable or broken model, or a device that is not there.
    """
    device = _device(device)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise FirstTokenError(f"dtype must be auto, {', '.join(DTYPES)}, not {dtype!r}.")
    settings: dict[str, Any] = dict(
        dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code
    )
    if name in BUNDLED:
        file = gguf_file(name)
        found = _gguf(name, file, settings)
        return replace(found, source="bundled", quantisation=f"{BUNDLED[name].quantisation}, dequantised")
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise FirstTokenError(f"There is no file {name}; give the path of an existing .gguf file.")
        return _gguf(name, path, settings)
    if path.is_dir():
        return _folder(name, path, settings)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FirstTokenError(f"There is no folder {name}; give a folder that holds config.json and safetensors.")
    return _hub(name, settings)


def load_all(names: str, **settings: Any) -> list[LanguageModel]:
    """Several models from one string, separated by commas: what a chapter's parameter `model` holds."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise FirstTokenError("The parameter model is empty; give a bundled name, hub id, folder or .gguf file.")
    return [load(name, **settings) for name in wanted]


def _device(device: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, present in there.items() if present)
    kind = device.split(":")[0]
    if kind not in there:
        raise FirstTokenError(f"device must be auto, cpu, cuda or mps, not {device!r}.")
    if not there[kind]:
        hint = " (the installed torch is a CPU build)" if kind == "cuda" and torch.version.cuda is None else ""
        raise FirstTokenError(f"This machine has no usable {kind} device{hint}; use device='auto' or 'cpu'.")
    return device


# -- the four sources ---------------------------------------------------------------------------------------


def _gguf(name: str, file: Path, settings: dict[str, Any]) -> LanguageModel:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise FirstTokenError(f"{name} is not a GGUF file or is damaged; download it again.")
        opened.seek(0)
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return LanguageModel(name, "gguf", str(file.parent), file.name, digest, "GGUF, dequantised", **settings)


def _folder(name: str, path: Path, settings: dict[str, Any]) -> LanguageModel:
    if not (path / "config.json").is_file():
        raise FirstTokenError(f"The folder {name} is no model: it has no config.json.")
    shards = sorted(path.glob("*.safetensors"))
    if not shards:
        raise FirstTokenError(
            f"The folder {name} has no .safetensors files; convert its weights to safetensors first."
        )
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for shard in shards:
        # Eight bytes of header length, then names, shapes and offsets: enough to tell checkpoints of different
        # layout apart without reading hundreds of gigabytes; the first and last MiB of data tell trainings apart.
        with shard.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size = shard.stat().st_size
            if length + 8 > size:
                raise FirstTokenError(f"{shard} is truncated; download it again.")
            digest.update(opened.read(min(length, 1 << 26)) + opened.read(1 << 20))
            opened.seek(max(size - (1 << 20), 0))
            digest.update(opened.read())
    quantisation = _quantisation(json.loads((path / "config.json").read_text()))
    return LanguageModel(name, "folder", str(path), None, digest.hexdigest(), quantisation, **settings)


def _hub(name: str, settings: dict[str, Any]) -> LanguageModel:
    with explain_loading(name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=settings["trust_remote_code"])
    commit = getattr(config, "_commit_hash", None) or "unknown"
    return LanguageModel(name, "hub", name, None, commit, _quantisation(config.to_dict()), **settings)


def _quantisation(config: dict[str, Any]) -> str:
    return (config.get("quantization_config") or {}).get("quant_method", "none")


def _remote(lm: LanguageModel) -> dict[str, Any]:
    if lm.source != "hub":
        return {}
    revision = None if lm.fingerprint == "unknown" else lm.fingerprint
    return {"trust_remote_code": lm.trust_remote_code, "revision": revision}


@contextmanager
def no_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # The GGUF reader draws a bar of its own, which no setting turns off.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _weights_folder(lm: LanguageModel) -> str:
    """What `from_pretrained` reads. A GGUF file is dequantised once to float32 safetensors, because reading its
    vocabulary and tensors takes ten seconds each time and the converted folder takes less than one."""
    if lm.gguf is None:
        return lm.path
    folder = cache_folder() / f"{lm.fingerprint[:16]}-float32-transformers-{transformers.__version__}"
    if not (folder / "config.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".dequantising-"))
        file: dict[str, Any] = {"gguf_file": lm.gguf}
        try:
            with no_progress_bar():
                AutoTokenizer.from_pretrained(lm.path, **file).save_pretrained(temporary)
                loaded = AutoModelForCausalLM.from_pretrained(lm.path, dtype=torch.float32, **file)
            # transformers calls a dequantised model quantised, and would not save it; the same weights in a
            # model made from the bare configuration are plain float32.
            config = loaded.config
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            with torch.device("meta"):
                plain = AutoModelForCausalLM.from_config(config)
            plain.load_state_dict(loaded.state_dict(), assign=True)
            plain.tie_weights()
            with no_progress_bar():
                plain.save_pretrained(temporary)
            os.chmod(temporary, 0o755)
            if not folder.exists():
                os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return str(folder)
