"""A causal language model and its tokenizer, found by `loading` and read when they are first used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from huggingface_hub import snapshot_download

from firsttoken.errors import FirstTokenError
from firsttoken.files import local_results, own_slug, slug
from firsttoken.models import family, gguf_conversion
from firsttoken.models.absurd_sizes import refuse_too_many_layers
from firsttoken.models.bundled import BUNDLED
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.fingerprints import folder_fingerprint
from firsttoken.models.gguf_conversion import dequantised_folder
from firsttoken.models.gguf_header import GgufHeader, read_gguf_header
from firsttoken.models.gguf_unread import refuse_unread_keys, unread_tensors
from firsttoken.models.loading_errors import explain_loading
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.models.positions import positions_of
from firsttoken.models.quiet import no_progress_bar
from firsttoken.models.weight_check import Weights, check_weights, meta_model, refuse_incomplete

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

BosPolicy = Literal["auto", "always", "never"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_RESERVED = frozenset(map(slug, (*BUNDLED, *family.FAMILY)))
_WORDS_TRIED = 2000  # of a vocabulary, until one of them is a text


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
