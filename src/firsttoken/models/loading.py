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
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from huggingface_hub import snapshot_download

from firsttoken.errors import FirstTokenError
from firsttoken.files import begins_as_path, local_results, own_slug, slug, typed_path
from firsttoken.models import family, gguf_conversion, gguf_parts
from firsttoken.models.bundled import BUNDLED, gguf_file
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.fingerprints import file_sha256, folder_fingerprint
from firsttoken.models.gguf_conversion import dequantised_folder
from firsttoken.models.gguf_header import GgufHeader, read_gguf_header
from firsttoken.models.gguf_unread import refuse_unread_keys, unread_tensors
from firsttoken.models.loading_errors import explain_loading
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.models.quiet import no_progress_bar
from firsttoken.models.weight_check import (
    Weights,
    check_weights,
    meta_model,
    positions_of,
    refuse_absurd,
    refuse_incomplete,
    refuse_too_many_layers,
)
from firsttoken.parameters import names_in

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Types that transformers lists among causal language models, and what they are.
_OF_OTHER_PURPOSE = {
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"), "drafts for another one and does not stand alone"
    ),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "continues sound, not text"),
}
BosPolicy = Literal["auto", "always", "never"]
_RESERVED = frozenset(map(slug, (*BUNDLED, *family.FAMILY)))
_LONGEST_NAME = 4096
_WORDS_TRIED = 2000  # of a vocabulary, until one of them is a text
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM and its tokenizer, found but not yet in memory: weights are read at the first use of `.model`.

    `fingerprint` identifies weights and tokenizer: the sha256 of a .gguf file, the hub's commit, or a hash of
    everything in a folder that a number depends on.
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
        """The name in file names and in `{result}` keys, which no other model has in this machine's records."""
        if self.source == "bundled":
            return slug(self.name)
        if self.source == "hub":
            owner, last = self.name, self.name
        else:
            whole = Path(self.name).expanduser().resolve()
            owner, last = str(whole), whole.name.removesuffix(".gguf")
        # The records of the book's models are committed, so their names are taken everywhere.
        elsewhere = f"{last}-{'hub' if self.source == 'hub' else 'local'}"
        return own_slug(elsewhere if slug(last) in _RESERVED else last, owner, local_results())

    def provenance(self) -> dict[str, Any]:
        """What a record says about the model it measured."""
        fields = ("name", "source", "fingerprint", "quantisation", "dtype", "device")
        checked = vars(self).get("weights")
        # Which tokens and weights a GGUF file means depends on the rules by which it is read, too.
        rules = {"conversion": gguf_conversion.rules(self._header)} if self.gguf else {}
        # The same files with the code that came with them compute something else than without.
        if self._own_code():
            rules["code"] = "its own"
        elif not self.gguf and getattr(self.config, "auto_map", None):
            rules["code_left_aside"] = "true"
        told = checked.told() if isinstance(checked, Weights) else {"checked": False}
        return {name: getattr(self, name) for name in fields} | rules | {"weights": told}

    @cached_property
    def weights(self) -> Weights:
        """What was found when the files were compared with the model, before any weight is read.

        Raises:
            FirstTokenError: the files lack parameters of the model, or hold others.
        """
        if getattr(self.config, "quantization_config", None):
            # The names in a quantised file are those of its method; what is missing shows when it is loaded.
            with explain_loading(self.name):
                return Weights(positions=positions_of(meta_model(self.config, self._code())))
        with explain_loading(self.name):
            checkpoint = open_checkpoint(self.local_folder())
            if not self._own_code():  # which may use one layer many times
                refuse_too_many_layers(self.name, self.config, len(checkpoint.tensors))
            empty = meta_model(self.config, self._code())
            compared = check_weights(self.name, checkpoint, empty)
            if self.gguf is None:
                return compared
            # The folder that was made of the file holds only what was read of it.
            refuse_unread_keys(self.name, self._header, self.config)
            return replace(compared, ignored=unread_tensors(self.name, self._header, empty))

    @cached_property
    def _header(self) -> GgufHeader:
        with explain_loading(self.name):
            return read_gguf_header(Path(self.path, self.gguf or ""))

    def _own_code(self) -> bool:
        """Whether the model, or its tokenizer, runs with code that came with it."""
        if not self._code():
            return False
        return bool(getattr(self.config, "auto_map", None)) or not type(self.tokenizer).__module__.startswith(
            ("transformers.", "tokenizers.")
        )

    def _code(self) -> bool:
        return self.trust_remote_code and not self.gguf

    def refuse_replaced(self) -> None:
        """Make sure that the files are still those whose fingerprint this model has; asked whenever they were read.

        Raises:
            FirstTokenError: they were replaced since `load`, so what was read of them has another fingerprint.
        """
        # A commit of the hub stays as it is, and a GGUF file is looked at when its folder is made, once.
        if self.source == "folder" and folder_fingerprint(open_checkpoint(self.path)) != self.fingerprint:
            raise FirstTokenError(
                f"The files of {self.name} were changed while they were in use, so a record could not say which it is "
                "about; wait until they are complete, and run it again."
            )

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        with explain_loading(self.name):
            tokenizer = AutoTokenizer.from_pretrained(_weights_folder(self), **_remote(self))
        self.refuse_replaced()
        return tokenizer

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The model's configuration, without its weights."""
        from transformers import AutoConfig

        with explain_loading(self.name):
            config = AutoConfig.from_pretrained(_weights_folder(self), **_remote(self))
        self.refuse_replaced()
        return config

    def local_folder(self) -> Path:
        """The folder with the configuration and the safetensors; a hub model's are downloaded first."""
        if self.source != "hub":
            return Path(_weights_folder(self))
        patterns = ["*.json", "*.safetensors", *(["*.py"] if self.trust_remote_code else [])]
        others = ["original/*", "consolidated*"]  # the same weights once more, under other names
        with explain_loading(self.name):
            return Path(
                snapshot_download(
                    self.path, revision=self.fingerprint, allow_patterns=patterns, ignore_patterns=others
                )
            )

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model in evaluation mode on its device."""
        from transformers import AutoModelForCausalLM

        place: dict[str, Any] = {"device_map": self.device_map or {"": self.device}}
        remedy = "give a smaller dtype (bfloat16), device_map='auto', or a smaller model"
        quiet = no_progress_bar() if self.gguf else nullcontext()
        mapping = self.weights.key_mapping()
        with explain_loading(self.name), explain_out_of_memory(remedy), quiet:
            both: Any = AutoModelForCausalLM.from_pretrained(
                _weights_folder(self),
                dtype=DTYPES[self.dtype],
                use_safetensors=True,
                key_mapping=mapping,
                output_loading_info=True,
                **place,
                **_remote(self),
            )
        self.refuse_replaced()
        model, info = both
        refuse_incomplete(self.name, info["missing_keys"], info["mismatched_keys"])
        return cast("PreTrainedModel", model.eval())

    @cached_property
    def longest_input(self) -> int | None:
        """How many tokens the model can read, where it has a table of positions; None where it computes them."""
        return positions_of(self.model) if "model" in vars(self) else self.weights.positions

    @cached_property
    def _prepended(self) -> list[int]:
        """What the tokenizer itself puts before a text, however many tokens."""
        for text in self._words():
            bare = list(self.tokenizer(text, add_special_tokens=False).input_ids)
            if not bare:
                continue  # a tokenizer of other letters, of DNA for example
            whole = list(self.tokenizer(text).input_ids)
            for start in range(len(whole) - len(bare) + 1):
                if whole[start : start + len(bare)] == bare:
                    return whole[:start]
            raise FirstTokenError(
                f"The tokenizer of {self.name} changes a text when it adds its special tokens, so what stands first "
                "is not known; use bos='never' or 'always'."
            )
        raise FirstTokenError(
            f"The tokenizer of {self.name} makes no token of any text, so what stands first is not known; copy the "
            "tokenizer's files again from where the model is from."
        )

    def _words(self) -> Iterator[str]:
        """Short texts: a letter, then those of the vocabulary."""
        yield "a"
        special = set(self.tokenizer.all_special_ids)
        for token in range(min(len(self.tokenizer), _WORDS_TRIED)):
            if token not in special:
                yield self.tokenizer.decode([token])

    @property
    def prepends_bos(self) -> bool:
        """Whether the tokenizer itself puts something first, usually its beginning-of-sequence token."""
        return bool(self._prepended)

    def prefix(self, bos: BosPolicy) -> list[int]:
        """The tokens that go before a text under a BOS policy.

        `auto` is what the tokenizer does, `always` the same or, where it does nothing, its BOS token.
        """
        if bos not in ("auto", "always", "never"):
            raise FirstTokenError(f"bos must be auto, always or never, not {bos!r}.")
        if bos == "never":
            return []
        if self._prepended or bos == "auto":
            return list(self._prepended)
        if self.tokenizer.bos_token_id is None:
            raise FirstTokenError(f"{self.name} has no BOS token in its tokenizer; use bos='auto' or 'never'.")
        return [self.tokenizer.bos_token_id]


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


def _remote(lm: LanguageModel) -> dict[str, Any]:
    if lm.gguf:
        return {}
    remote = {"trust_remote_code": lm.trust_remote_code}
    return remote | {"revision": lm.fingerprint} if lm.source == "hub" else remote


def _weights_folder(lm: LanguageModel) -> str:
    """What `from_pretrained` reads."""
    if lm.gguf is None:
        return lm.path
    with explain_loading(lm.name):
        return str(dequantised_folder(lm.name, Path(lm.path, lm.gguf), lm.fingerprint, lm._header))
