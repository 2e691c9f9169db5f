"""What an attention sink looks like: the attention maps of every head of a model on one short passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from firsttoken import texts
from firsttoken.claims.phenomenon.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.execution.check import layer_numbers
from firsttoken.measures import sinks
from firsttoken.measures.attention_maps import every_map, pack
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.ranges import at_least, in_range


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of one passage."""

    text: str = "goat-auction-bluff"  # the passage itself, or the name of one of the project's
    length: int = 24  # tokens, BOS included; every head's map is stored, so this stays small
    epsilon: float = 0.3
    bos: BosPolicy = "auto"
    execution: str = "auto"  # resident, streamed; see `by_layer.through_layers`

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        at_least(2, length=self.length)


def passages(parameters: Parameters) -> list[str]:
    """The one text, which may be named."""
    return [texts.passage(parameters.text)]


def spelled_out(lm: LanguageModel, parameters: Parameters) -> Parameters:
    """The passage itself in place of its name, so that a record holds what was read."""
    return replace(parameters, text=texts.passage(parameters.text))


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """What `seen` has of the one passage."""
    return seen(lm, parameters, passages[0])


def seen(lm: LanguageModel, parameters: Parameters | OtherParameters, passage: str) -> JSON:
    """`tokens`, `alpha` (layer, head), every map, `mass` and `sink_rate`, the `strongest` head, and what an `even`
    spread of attention would give the first token."""
    ids = texts.encode(lm, [passage], parameters.length, parameters.bos)
    maps = every_map(lm, ids, parameters.execution)
    alpha = maps[..., 0].mean(-1)
    row, head = divmod(int(alpha.argmax()), alpha.shape[1])
    layer = layer_numbers(lm, len(alpha), parameters.execution)[row]
    return {
        "tokens": [lm.tokenizer.decode([token]) for token in ids[0].tolist()],
        "alpha": [[round(value, 4) for value in row] for row in alpha.tolist()],
        "maps": [[pack(head_map) for head_map in layer_maps] for layer_maps in maps],
        "mass": float(alpha.mean()),
        "sink_rate": float(sinks.sink_rate(alpha[None], parameters.epsilon)),
        "strongest": {"layer": layer, "head": head, "alpha": float(alpha.max())},
        "even": sinks.even_share(parameters.length),
    }


# Titles and texts, which may be named. In the second a head can know from the text itself what comes next.
OTHERS = {
    "Python": "python-running-median",
    "repetition": "The goat ate the green hat. " * 6,
    "French": "fr-le-marche-du-samedi",
}


@dataclass(frozen=True, kw_only=True)
class OtherParameters:
    """How the further passages are read."""

    length: int = 24  # tokens of each, BOS included
    epsilon: float = 0.3
    bos: BosPolicy = "auto"
    execution: str = "auto"

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        at_least(2, length=self.length)


def run_others(lm: LanguageModel, parameters: OtherParameters, passages: Sequence[str]) -> JSON:
    """`passages`: for each its `title` and what `seen` has of it."""
    return {
        "passages": [
            {"title": title, **seen(lm, parameters, passage)} for title, passage in zip(OTHERS, passages, strict=True)
        ]
    }


MEASUREMENT = Measurement(
    claim="phenomenon",
    parameters=Parameters,
    passages=passages,
    run=run,
    judge=judge,
    fit=spelled_out,
    copies=frozenset({"maps"}),
)
OTHER_PASSAGES = Measurement(
    claim="phenomenon",
    parameters=OtherParameters,
    passages=lambda parameters: [texts.passage(text) for text in OTHERS.values()],
    run=run_others,
    variant="passages",
    copies=frozenset({"maps"}),
)
MEASUREMENTS = (MEASUREMENT, OTHER_PASSAGES)
