"""What a record of one passage says about sinks being there."""

from __future__ import annotations

from firsttoken.records import Record, Verdict


def judge(record: Record) -> Verdict:
    """Sinks exist in this model on this passage if the first token gets at least three times an even share."""
    values, parameters = record.values, record.parameters
    ratio = values["mass"] / values["even"]
    sentence = (
        f"The first of {parameters['length']} tokens gets {values['mass']:.1%} of all attention, {ratio:.1f} times "
        f"what an even spread would give it, and {values['sink_rate']:.1%} of the heads give it more than "
        f"{parameters['epsilon']} of theirs, on one passage."
    )
    return Verdict("reproduced" if ratio >= 3 else "partly" if ratio >= 1.5 else "not reproduced", sentence)
