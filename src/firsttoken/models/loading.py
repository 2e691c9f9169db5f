"""Load any causal language model by one name, with one clear sentence where that is not possible.

>>> lm = load("smollm2-135m")                 # bundled with the package index, nothing to download
>>> lm = load("meta-llama/Llama-3.1-8B")      # the Hugging Face hub
>>> lm = load("EleutherAI/pythia-70m@step1000")   # a branch, tag or commit of it
>>> lm = load("./checkpoints/mine")           # a folder with config.json and safetensors
>>> lm = load("./model.Q4_K_M.gguf")          # llama.cpp's format, dequantised on loading
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from firsttoken.errors import FirstTokenError
from firsttoken.files import begins_as_path, typed_path
from firsttoken.models import family, gguf_parts
from firsttoken.models.absurd_sizes import refuse_absurd
from firsttoken.models.bundled import BUNDLED, gguf_file
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.fingerprints import file_sha256, folder_fingerprint
from firsttoken.models.gguf_header import read_gguf_header
from firsttoken.models.language_model import DTYPES, LanguageModel
from firsttoken.models.loading_errors import explain_loading
from firsttoken.parameters import names_in

# Types that transformers lists among causal language models, and what they are.
_OF_OTHER_PURPOSE = {
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"), "drafts for another one and does not stand alone"
    ),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "continues sound, not text"),
}
_LONGEST_NAME = 4096


def load(
    name: str | os.PathLike[str],
    *,
    dtype: str = "auto",
    device: str | torch.device = "auto",
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
    if not isinstance(name, str | os.PathLike) or not isinstance(named := os.fspath(name), str):
        raise FirstTokenError(f"A model has a name, a text; {name!r} is none.")
    name = named
    if not isinstance(trust_remote_code, bool):
        raise FirstTokenError(f"trust_remote_code must be true or false, not {trust_remote_code!r}.")
    device = _device(device)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FirstTokenError(f"dtype must be auto, {', '.join(DTYPES)}, not {dtype!r}.")
    settings: dict[str, Any] = dict(
        dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code
    )
    if (name in BUNDLED or name in family.FAMILY) and Path(name, "config.json").is_file():
        raise FirstTokenError(
            f"{name} is a model of this book and a folder here: give ./{name} for the folder, or call from elsewhere "
            "for the book's."
        )
    if name in BUNDLED:
        lm = _gguf(name, gguf_file(name), settings)
        return replace(lm, source="bundled", quantisation=f"{BUNDLED[name].quantisation}, dequantised")
    if name in family.FAMILY:
        if not family.is_here(name):
            return load(family.FAMILY[name].hub, **settings)
        lm = _gguf(name, family.gguf_file(family.FAMILY[name]), settings)
        return replace(lm, source="bundled", quantisation=f"{family.FAMILY[name].quantisation}, dequantised")
    path = _path(name)
    with explain_loading(name):
        if path.is_dir():
            return _folder(name, path, settings)
        if name.lower().endswith(".gguf"):
            if not path.is_file():
                raise FirstTokenError(f"There is no file {name}; give the path of an existing .gguf file.")
            return _gguf(name, path, settings)
        if begins_as_path(name) or name.count("/") > 1 or path.exists():
            raise FirstTokenError(f"There is no folder {name}; give a folder that holds config.json and safetensors.")
        return _hub(name, settings)


def _path(name: str) -> Path:
    """`name` as a path, which it need not be.

    Raises:
        FirstTokenError: no file system could have it.
    """
    if not name.strip() or "\0" in name or len(name) > _LONGEST_NAME or max(map(len, name.split("/"))) > 255:
        raise FirstTokenError("This is no name of a model: give a bundled name, hub id, folder or .gguf file.")
    return typed_path(name)


def load_all(names: str | os.PathLike[str], **settings: Any) -> list[LanguageModel]:
    """Several models from one string, separated by commas: what a chapter's parameter `model` holds."""
    if not isinstance(names, str):
        return [load(names, **settings)]
    wanted = names_in(names)
    if len(wanted) > 1 and _path(names).exists():
        wanted = [names]  # a path with a comma in it
    if not wanted:
        raise FirstTokenError("The parameter model is empty; give a bundled name, hub id, folder or .gguf file.")
    return [load(name, **settings) for name in wanted]


def _device(device: str | torch.device) -> str:
    if not isinstance(device, str | torch.device):
        raise FirstTokenError(f"device must be auto, cpu, cuda or mps, not {device!r}.")
    device = str(device)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, present in there.items() if present)
    kind = device.split(":")[0]
    if kind not in there:
        raise FirstTokenError(f"device must be auto, cpu, cuda or mps, not {device!r}.")
    if not there[kind]:
        hint = " (the installed torch is a CPU build)" if kind == "cuda" and torch.version.cuda is None else ""
        raise FirstTokenError(f"This machine has no usable {kind} device{hint}; use device='auto' or 'cpu'.")
    number = device.partition(":")[2]
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if ":" in device and (not number.isdecimal() or int(number) >= count):
        raise FirstTokenError(f"There is no device {device!r}: this machine has {count} of them, from {kind}:0 on.")
    return device


# -- the four sources ---------------------------------------------------------------------------------------


def _gguf(name: str, file: Path, settings: dict[str, Any]) -> LanguageModel:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise FirstTokenError(f"{name} is not a GGUF file or is damaged; download it again.")
    file = gguf_parts.whole(file)
    kinds = "" if name in BUNDLED else f" ({read_gguf_header(file).kinds})"
    return LanguageModel(
        name, "gguf", str(file.parent), file.name, file_sha256(file), f"GGUF{kinds}, dequantised", **settings
    )


def _folder(name: str, path: Path, settings: dict[str, Any]) -> LanguageModel:
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise FirstTokenError(f"The folder {name} is an adapter; merge it into its base model and save that.")
        raise FirstTokenError(f"The folder {name} is no model: it has no config.json.")
    if (path / "adapter_config.json").is_file():
        raise FirstTokenError(
            f"The folder {name} has an adapter beside its weights; merge the two and save that, or move "
            "adapter_config.json away to measure the weights alone."
        )
    quantisation = _quantisation(_config_json(path / "config.json"))
    if not any(path.glob("*.safetensors")):
        raise FirstTokenError(
            f"The folder {name} has no .safetensors files; convert its weights to safetensors first."
        )
    fingerprint = folder_fingerprint(open_checkpoint(path))
    return LanguageModel(name, "folder", str(path), None, fingerprint, quantisation, **settings)


def _hub(name: str, settings: dict[str, Any]) -> LanguageModel:
    from transformers.utils.hub import cached_file, extract_commit_hash

    repository, _, revision = name.partition("@")
    with explain_loading(name):
        config_file = cached_file(repository, "config.json", revision=revision or None)
        commit = extract_commit_hash(config_file, None)
        if config_file is None or commit is None:
            raise FirstTokenError(
                f"{name}: the hub does not say which commit this is, so a record of it could not be told from that "
                "of other weights; download it and give the folder."
            )
        quantisation = _quantisation(_config_json(Path(config_file)))
    return LanguageModel(name, "hub", repository, None, commit, quantisation, **settings)


def _config_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FirstTokenError(f"{path} is damaged: it is not JSON; download it again.") from error
    if not isinstance(config, dict):
        raise FirstTokenError(f"{path} is no configuration of a model; download it again.")
    if (purpose := _OF_OTHER_PURPOSE.get(str(config.get("model_type")))) is not None:
        raise FirstTokenError(f"The model of {path} {purpose}; choose a causal language model.")
    refuse_absurd(str(path), config)
    return config


def _quantisation(config: dict[str, Any]) -> str:
    told = config.get("quantization_config") or {}
    return str(told.get("quant_method", "none")) if isinstance(told, dict) else "none"
