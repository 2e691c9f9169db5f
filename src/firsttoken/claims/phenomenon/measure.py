"""What an attention sink looks like: the attention maps of every head of a model on one short passage."""

from __future__ import annotations

from dataclasses import dataclass

from firsttoken import records, texts
from firsttoken.estimates import JSON
from firsttoken.measures import sinks
from firsttoken.measures.attention_maps import every_map, pack
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.records import Record, Verdict


@dataclass(frozen=True)
class Phenomenon:
    """Parameters of the measurement."""

    text: str  # the passage itself
    length: int = 24  # tokens, BOS included; every head's map is stored, so this stays small
    epsilon: float = 0.3
    bos: BosPolicy = "auto"
    execution: str = "auto"  # resident, streamed; see `by_layer.through_layers`


def measure(lm: LanguageModel, parameters: Phenomenon, fresh: bool = False) -> Record:
    """The record `phenomenon/<model>.json`: tokens, alpha (layer, head), every map, mass and share of sink heads."""
    sinks.check_epsilon(parameters.epsilon)

    def run() -> JSON:
        ids = texts.encode(lm, [parameters.text], parameters.length, parameters.bos)
        maps = every_map(lm, ids, parameters.execution)
        alpha = maps[..., 0].mean(-1)
        layer, head = divmod(int(alpha.argmax()), alpha.shape[1])
        return {
            "tokens": [lm.tokenizer.decode([token]) for token in ids[0].tolist()],
            "alpha": [[round(value, 4) for value in row] for row in alpha.tolist()],
            "maps": [[pack(head_map) for head_map in layer_maps] for layer_maps in maps],
            "mass": float(alpha.mean()),
            "sink_rate": float(sinks.sink_rate(alpha[None], parameters.epsilon)),
            "strongest": {"layer": layer, "head": head, "alpha": float(alpha.max())},
            "even": sinks.even_share(parameters.length),
        }

    return records.reuse_or_measure(
        "phenomenon",
        model=lm,
        parameters=records.recorded(parameters),
        texts=texts.texts_hash([parameters.text]),
        measure=run,
        judge=lambda values: judge(parameters, values),
        fresh=fresh,
    )


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    return measure(lm, Phenomenon(**record.parameters), fresh=True)


def judge(parameters: Phenomenon, values: JSON) -> Verdict:
    """Sinks exist in this model on this passage if the first token gets at least three times an even share."""
    ratio = values["mass"] / values["even"]
    sentence = (
        f"The first of {parameters.length} tokens gets {values['mass']:.1%} of all attention, {ratio:.1f} times what "
        f"an even spread would give it, and {values['sink_rate']:.1%} of the heads give it more than "
        f"{parameters.epsilon} of theirs, on one passage."
    )
    return Verdict("reproduced" if ratio >= 3 else "partly" if ratio >= 1.5 else "not reproduced", sentence)
