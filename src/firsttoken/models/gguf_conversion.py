"""From llama.cpp's format to a folder that transformers loads, once for each file.

The weights are dequantised to float32, because reading a GGUF file's vocabulary and tensors takes ten seconds each
time and the folder takes less than one. What transformers' reader leaves out is put right here: the
beginning-of-sequence token where no key says whether there is one, merges, and rotary factors.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import pre_tokenizers
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, whole_folder
from firsttoken.models.absurd_sizes import refuse_too_many_layers
from firsttoken.models.anatomy import head_size
from firsttoken.models.fingerprints import file_sha256
from firsttoken.models.gguf_header import GgufHeader
from firsttoken.models.gguf_split import split_of
from firsttoken.models.gguf_unread import (
    harmless,
    refuse_more_tokens_than_embeddings,
    refuse_unread_keys,
    unread_tensors,
)
from firsttoken.models.quiet import no_progress_bar
from firsttoken.models.rope_factors import rope_parameters
from firsttoken.models.weight_check import meta_model, refuse_incomplete
from firsttoken.processes import is_running

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# What llama.cpp does where the file has no key: byte-level vocabularies with these splits get a BOS token, and words
# that are in the vocabulary are taken whole (`llama_vocab::impl::load` in src/llama-vocab.cpp).
_WHOLE_WORDS_AND_BOS = frozenset(
    {
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
        "tekken",
    }
)
_BOS_ONLY = frozenset({"chameleon"})
_BOS_BY_MODEL = {"llama": True, "bert": True, "t5": False, "rwkv": False}
_SPACE = "tokenizer.ggml.add_space_prefix"
# Architectures whose tokenizers once lost the file's way of cutting a text when they were kept, but for this one.
_CUT_ANEW, _OWN_CUT = ("qwen", "starcoder", "gpt2", "mamba"), ("qwen2",)
# Raised when a folder made before would now be made otherwise.
RULES = "3"
# Folders that a conversion works in, with the machine's name, as machines may share a cache, and the process's number.
_UNFINISHED = (".dequantising-", ".gguf-")
_OWN = f"{re.sub('[^A-Za-z0-9]', '', platform.node())}-"
_OF_PROCESS = re.compile(rf"(?:{'|'.join(map(re.escape, _UNFINISHED))}){_OWN}(\d+)-")


def adds_bos(header: GgufHeader) -> bool | None:
    """Whether llama.cpp puts a BOS token first; None where transformers' own rule for the tokenizer holds."""
    if (said := header.keys.get("tokenizer.ggml.add_bos_token")) is not None:
        return bool(said)
    if _byte_level(header):
        return header.keys.get("tokenizer.ggml.pre") in _WHOLE_WORDS_AND_BOS | _BOS_ONLY
    return _BOS_BY_MODEL.get(str(header.keys.get("tokenizer.ggml.model")))


def _byte_level(header: GgufHeader) -> bool:
    return header.keys.get("tokenizer.ggml.model") == "gpt2"


def rules(header: GgufHeader) -> str:
    """The rules by which a file is read: part of whose record it is, so files that a change of the rules leaves as
    they were keep theirs."""
    told, architecture = header.keys.get(_SPACE), header.architecture
    changed = RULES
    # What transformers' reader does whatever the key says.
    unasked = not architecture.startswith("gemma")
    if told is not None and bool(told) != unasked and not _byte_level(header):
        changed += "-space" if told else "-no-space"
    if architecture.startswith(_CUT_ANEW) and header.keys.get("tokenizer.ggml.pre") not in _OWN_CUT:
        changed += "-as-cut"
    return changed


def dequantised_folder(name: str, file: Path, fingerprint: str, header: GgufHeader) -> Path:
    """The folder for a GGUF file, made at the first call.

    Args:
        name: the model's name, for sentences.
        fingerprint: the file's sha256.
        header: what the file says about itself.

    Raises:
        FirstTokenError: the file is damaged, a part of a model, lacks parameters, or was replaced since its sha256
            was taken. Nothing stays in the cache.
    """
    made_by = f"{rules(header)}-transformers-{version('transformers')}"
    folder = cache_folder() / f"{fingerprint[:16]}-float32-{made_by}"
    if (folder / "config.json").exists():
        return folder
    _sweep(folder.parent)
    dequantising, given = (f"{unfinished}{_OWN}{os.getpid()}-" for unfinished in _UNFINISHED)
    with (
        whole_folder(folder, holds="config.json", prefix=dequantising) as partial,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=given, ignore_cleanup_errors=True) as source,
    ):
        # Under a name that transformers knows by its ending, and alone, so that nothing beside it is read too.
        (Path(source) / "model.gguf").symlink_to(file.resolve())
        _convert(name, Path(source), header, partial)
        if file_sha256(file) != fingerprint:
            raise FirstTokenError(f"{file} was changed while it was read; wait until it is complete, and try again.")
    return folder


def _sweep(cache: Path) -> None:
    """Remove what processes left that were ended in the middle of a conversion."""
    for folder in cache.glob(".*"):
        left = _OF_PROCESS.match(folder.name)
        if left and not is_running(int(left[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _convert(name: str, source: Path, header: GgufHeader, target: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from firsttoken.models.gguf_reading import parsed_once

    told: dict[str, Any] = {"gguf_file": "model.gguf"}
    prepends = adds_bos(header)
    split = split_of(header.keys.get("tokenizer.ggml.pre"), name) if _byte_level(header) else None
    # The reader keeps this setting where the file has no key for it.
    bos: dict[str, Any] = {} if prepends is None else {"add_bos_token": prepends}
    refuse_more_tokens_than_embeddings(name, header)
    with no_progress_bar(), parsed_once():
        config = AutoConfig.from_pretrained(source, **told)
        refuse_too_many_layers(name, config, len(header.tensors))
        refuse_unread_keys(name, header, config)
        unread_tensors(name, header, meta_model(config))
        tokenizer = AutoTokenizer.from_pretrained(source, **told, **bos)
        if split is not None:
            tokenizer.backend_tokenizer.pre_tokenizer = split
        if header.keys.get("tokenizer.ggml.pre") in _WHOLE_WORDS_AND_BOS:
            tokenizer.backend_tokenizer.model.ignore_merges = True
        if (told_of_space := header.keys.get(_SPACE)) is not None and not _byte_level(header):
            _put_space_first(name, tokenizer, bool(told_of_space))
        _save_as_it_is(name, tokenizer, target)
        both: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **told)
    loaded, info = both
    refuse_incomplete(name, info["missing_keys"], info["mismatched_keys"])
    config = loaded.config
    harmless(name, header, config, sorted(info["unexpected_keys"]))
    # transformers calls a dequantised model quantised, and would not save it; the same weights in a model made from
    # the bare configuration are plain float32.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    _stretch(config, header, source / "model.gguf")
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    with no_progress_bar():
        plain.save_pretrained(target)


def _save_as_it_is(name: str, tokenizer: Any, target: Path) -> None:
    """Save a tokenizer so that it is the same when it is read back: some classes then put their own way of cutting a
    text in place of the file's.

    Raises:
        FirstTokenError: it is another when it is read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer.save_pretrained(target)
    if _same_tokens(tokenizer, AutoTokenizer.from_pretrained(target)):
        return
    settings = target / "tokenizer_config.json"
    plain = json.loads(settings.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(plain), encoding="utf-8")
    if not _same_tokens(tokenizer, PreTrainedTokenizerFast.from_pretrained(target)):
        raise FirstTokenError(
            f"{name}: its tokenizer cannot be kept as the file describes it; use the original safetensors instead."
        )


def _same_tokens(made: Any, kept: Any) -> bool:
    one, other = (json.loads(each.backend_tokenizer.to_str()) for each in (made, kept))
    # Some models' own tokenizers compose characters, of which their files say nothing.
    composed = one["normalizer"] is None and other["normalizer"] == {"type": "NFC"}
    asked = ("pre_tokenizer", "model", "post_processor", "added_tokens", *(() if composed else ("normalizer",)))
    return all(one[part] == other[part] for part in asked)


def _put_space_first(name: str, tokenizer: Any, wanted: bool) -> None:
    """Let a SentencePiece tokenizer put a space before a text, or not, as the file says; transformers' reader knows
    the key and does not use it.

    Raises:
        FirstTokenError: the tokenizer does it in another way than SentencePiece's.
    """
    backend = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer.prepend_scheme = "first" if wanted else "never"
    text = backend.normalizer.normalize_str("a") if backend.normalizer else "a"
    pieces = backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer else [(text, None)]
    if pieces[0][0].startswith(("\u2581", " ")) != wanted:
        raise FirstTokenError(
            f"{name}: the file says {_SPACE} = {wanted}, and the tokenizer that transformers "
            "makes of it does otherwise, so another first token would be measured; use the original safetensors "
            "instead."
        )


def _stretch(config: PreTrainedConfig, header: GgufHeader, file: Path) -> None:
    """Put the file's rotary factors into the configuration."""
    text = config.get_text_config()
    own = getattr(text, "rope_parameters", None)
    if not own:
        return
    size = int(head_size(text) * own.get("partial_rotary_factor", 1.0))
    text.rope_parameters = rope_parameters(header.keys, _factors(header, file), own, size)


def _factors(header: GgufHeader, file: Path) -> dict[str, Tensor]:
    """The tensors of rotary factors in the file. Some files repeat them in every layer (`blk.0.rope_freqs.weight`).

    Raises:
        FirstTokenError: layers have different ones.
    """
    wanted = [name for name in header.tensors if "rope_freqs" in name or "rope_factors" in name]
    if not wanted:
        return {}
    from firsttoken.models.gguf_reading import PlainReader

    tensors = {tensor.name: tensor for tensor in PlainReader(file).tensors}
    factors: dict[str, Tensor] = {}
    for name in wanted:
        values = torch.tensor(tensors[name].data).float().flatten()
        plain = re.sub(r"^blk\.\d+\.", "", name)
        if not torch.allclose(factors.setdefault(plain, values), values, rtol=0, atol=0, equal_nan=True):
            raise FirstTokenError(
                f"The file's rotary factors differ between layers ({name}), for which transformers has no place; use "
                "the original safetensors instead."
            )
    return factors
