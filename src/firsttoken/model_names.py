"""What the models of the records are called for readers, and the terms that they come under.

A slug such as `smollm2-135m` is short enough for a file name and leaves out what a reader must know: that this one is
tuned on instructions, that the other is not, and that both are quantised copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from firsttoken.files import begins_as_path
from firsttoken.records import Record


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """A model as pages show it."""

    name: str
    short: str = ""  # where there is little room: in figures and tables
    copy: str = ""  # which copy of its weights was measured
    licence: str = ""
    terms: str = ""  # address of the licence or of the terms of use

    @property
    def full(self) -> str:
        """The name with the copy that was measured."""
        return f"{self.name} ({self.copy})" if self.copy else self.name


# Names and variants as in the metadata of the files, which a test reads again: that of Gemma names no tuning and
# has no chat template, so it is the pretrained model.
NAMES: Mapping[str, ModelName] = {
    "smollm2-135m": ModelName(
        name="SmolLM2-135M-Instruct",
        short="SmolLM2 135M",
        copy="Q4_1 GGUF",
        licence="Apache-2.0",
        terms="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gemma3-270m": ModelName(
        name="Gemma 3 270M",
        short="Gemma 3 270M",
        copy="pretrained, Q4_K_M GGUF",
        licence="Gemma Terms of Use",
        terms="https://ai.google.dev/gemma/terms",
    ),
    "qwen2.5-coder-0.5b": ModelName(
        name="Qwen2.5-Coder-0.5B-Instruct",
        short="Qwen2.5-Coder 0.5B",
        copy="Q5_0 GGUF, by third parties",
        licence="Apache-2.0",
        terms="https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct",
    ),
    "qwen2.5-coder-1.5b": ModelName(
        name="Qwen2.5-Coder-1.5B-Instruct",
        short="Qwen2.5-Coder 1.5B",
        copy="Q4_K_M GGUF, by third parties",
        licence="Apache-2.0",
        terms="https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct",
    ),
}


def model_name(slug: str, own: str = "") -> ModelName:
    """What a model is called.

    Args:
        slug: as in a record's `model` and file name.
        own: the name in the record's provenance, which is shown for a model that is not listed here.
    """
    known = {key.replace(".", "-"): known for key, known in NAMES.items()}  # a slug has no dots
    return known.get(slug) or ModelName(name=own or slug)


def own_name(record: Record) -> str:
    """The name that the measured model has by itself: the hub id, or the last part of the path of a file or folder.
    Where it lay on the machine that measured it is in the record and on no page.
    """
    origin = record.provenance.get("model") or {}
    name = origin.get("name") or record.model
    lies_here = origin.get("source") in ("folder", "gguf") or begins_as_path(name) or name.count("/") > 1
    if not lies_here:
        return name
    last = Path(name).name
    return last if last.strip("~.") else record.model


def called(record: Record) -> str:
    """What figures, tables and captions call the model of a record."""
    return short_name(record.model)


def names_of(records: Iterable[Record]) -> str:
    """What they call the models of several."""
    return ", ".join(map(called, records))


def short_name(slug: str) -> str:
    """What figures, tables and captions call a model; one that is not listed here keeps its slug."""
    known = model_name(slug)
    return known.short or known.name
