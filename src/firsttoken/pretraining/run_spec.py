"""What a pretraining run is: a budget, a packing and what differs from the budget. `train.py` does it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch

from firsttoken import files, records
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.parameters import from_text
from firsttoken.pretraining import designs
from firsttoken.pretraining.budgets import Budget, budget
from firsttoken.pretraining.packing import Packing
from firsttoken.ranges import LARGEST_SEED, MOST, between
from firsttoken.records import Record

CLAIM = "pretraining"  # the folder of the records of runs
SHORT = 64  # tokens of a text in the curves, as in the paper's sink rates


@dataclass(frozen=True)
class Training:
    """One run. What is None is as in the budget."""

    budget: str = "smoke"
    packing: Packing = field(default_factory=Packing)
    seed: int = 0
    learning_rate: float | None = None
    weight_decay: float | None = None
    tokens: int | None = None
    least: int = 0  # train only on documents of so many tokens or more
    source: str | None = None  # of the text
    design: str | None = None  # of attention, see `designs`; None: transformers' own
    first_penalty: float = 0.0  # nats of loss for attention to the first token, times its mean; below 0 a reward
    replaced: float = 0.0  # share of the tokens that are replaced by random ones in what the model reads

    def settings(self) -> Budget:
        """The budget with what this run changes."""
        changes: JSON = {
            name: value
            for name in ("learning_rate", "weight_decay", "tokens")
            if (value := getattr(self, name)) is not None
        }
        settings = replace(budget(self.budget), **changes)
        if self.source is not None:
            settings = replace(settings, corpus=replace(settings.corpus, source=self.source))
        if settings.tokens_per_step % self.packing.length:
            raise FirstTokenError(
                f"{settings.tokens_per_step} tokens a step are no whole number of windows of {self.packing.length}; "
                "use a power of two."
            )
        if self.design is not None:
            designs.check(self.design)
            if self.packing.masking != "causal" or self.packing.reset_positions:
                raise FirstTokenError(
                    "A design of attention is trained with causal masking and positions of the window."
                )
        elif self.first_penalty:
            raise FirstTokenError(
                "What attention gets the first token is known in training only of a design; give design=softmax."
            )
        if not 0 <= self.replaced < 1:
            raise FirstTokenError(f"`replaced` is a share, from 0 to below 1, not {self.replaced}.")
        if settings.steps < 20:
            raise FirstTokenError(f"{settings.tokens} tokens are {settings.steps} steps; train for 20 steps or more.")
        return settings

    @property
    def slug(self) -> str:
        """The name of its record: the budget, the packing, and what differs from the budget."""
        packing = self.packing
        parts = [self.budget, packing.masking, f"bos-{packing.bos}", f"t{packing.length}"]
        parts += [] if packing.eos else ["no-eos"]
        parts += ["reset-positions"] if packing.reset_positions else []
        parts += [f"loss-{packing.loss}"] if packing.loss != "all" else []
        parts += [
            f"{short}-{value:g}"
            for short, value in (("lr", self.learning_rate), ("wd", self.weight_decay), ("tokens", self.tokens))
            if value is not None
        ]
        parts += [f"least-{self.least}"] if self.least else []
        # A file name says which text it was, not where that lay.
        parts += [Path(self.source).name if _is_path(self.source) else self.source] if self.source else []
        parts += [f"design-{self.design}"] if self.design else []
        name = "penalised" if self.first_penalty > 0 else "rewarded"
        parts += [f"{name}-{abs(self.first_penalty):g}"] if self.first_penalty else []
        parts += [f"replaced-{self.replaced:g}"] if self.replaced else []
        parts += [f"seed-{self.seed}"] if self.seed else []
        return files.slug(" ".join(parts))

    def told(self) -> JSON:
        """What a record says of it. Fields that came later than the first records are left out where they say nothing
        new, so that those still answer."""
        told = asdict(self)
        for name in ("first_penalty", "replaced"):
            if not told[name]:
                del told[name]
        if self.design is None:
            del told["design"]
        if self.packing.loss == "all":
            del told["packing"]["loss"]
        return told

    def provenance(self) -> JSON:
        """Takes the place of a model in a record: what was trained is what the settings say."""
        told = {**self.settings().told(), **self.told()}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return {
            "name": f"pretrained here, budget {self.budget}",
            "source": "pretrained",
            "fingerprint": fingerprint(told),
            "quantisation": "",
            "dtype": "bfloat16 products, float32 weights" if bf16_pays() else "float32",
            "device": device,
        }


def _is_path(source: str) -> bool:
    return files.begins_as_path(source) or files.typed_path(source).exists()


def find(training: Training) -> Record | None:
    """The record of a training if there is one, whatever text it was trained on."""
    return records.find(CLAIM, training.slug)


def fingerprint(told: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def bf16_pays() -> bool:
    """Whether matrix products in bfloat16 run in hardware."""
    return torch.cuda.is_available() or bool(torch.backends.cpu.get_cpu_capability() and _cpu_has_bf16())


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def from_command_line(budget_name: str, asked: Mapping[str, str]) -> Training:
    """A run from what was typed on a command line: names and values of the fields of `Training` and `Packing`.

    Raises:
        FirstTokenError: there is no such field, or its value is of another type.
    """
    kinds = {**get_type_hints(Packing), **get_type_hints(Training)}
    known = sorted(set(kinds) - {"budget", "packing"})
    of_packing: JSON = {}
    of_training: JSON = {}
    for name, text in asked.items():
        if name not in known:
            raise FirstTokenError(f"A training has no parameter {name}; it has {', '.join(known)}.")
        value = from_text(name, kinds[name], text)
        (of_packing if name in get_type_hints(Packing) else of_training)[name] = value
    training = Training(budget_name, Packing(**of_packing), **of_training)
    between(8, MOST, length=training.packing.length)
    between(0, LARGEST_SEED, seed=training.seed)
    between(0, MOST, least=training.least)
    between(-1000, 1000, first_penalty=training.first_penalty)
    between(0, 0.99, replaced=training.replaced)
    for name, most in (("learning_rate", 10.0), ("weight_decay", 10.0), ("tokens", 10**15)):
        if (given := getattr(training, name)) is not None:
            between(0, most, **{name: given})
    return training
