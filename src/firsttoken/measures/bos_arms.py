"""With BOS and without: the names of the two arms, and what their first-token masses say about comparing them.

Without torch, because verdicts and figures use it; `bos_contrast` runs the arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from firsttoken.model_names import called
from firsttoken.records import Record

Arm = Literal["with_bos", "without_bos"]
ARMS: tuple[Arm, ...] = ("with_bos", "without_bos")
LABELS: dict[Arm, str] = {"with_bos": "with BOS", "without_bos": "without BOS"}
BOS_IS_NATIVE = "bos_native"  # in the provenance: whether the tokenizer puts something first by itself
ADDED = "BOS added, not native"


def bos_was_added(record: Record) -> bool:
    """Whether the arm with BOS is of a tokenizer that puts nothing first by itself; False where that is not known."""
    return record.provenance.get(BOS_IS_NATIVE) is False


def called_with_arms(record: Record, before: str = " ") -> str:
    """What figures and tables that compare the arms call a model: its name, and whether its BOS was added.

    Args:
        before: what stands between the two, such as a new line in a title.
    """
    return f"{called(record)}{before}({ADDED})" if bos_was_added(record) else called(record)


def sink_survives(mass: Mapping[str, Any]) -> bool:
    """Whether the first token keeps more than half of its attention when it is no BOS: then the two arms differ in a
    token but not in having a sink, and comparing them says nothing about sinks.

    Args:
        mass: arm -> estimate, see `first_token_mass`.
    """
    return bool(mass["without_bos"]["value"] > 0.5 * mass["with_bos"]["value"])


def mass_sentence(mass: Mapping[str, Any]) -> str:
    """The attention on the first token in both arms, and what it means for a comparison of the two.

    A model that was trained without BOS may treat one as a stranger: the arm with BOS is then the one without a sink.
    """
    sentence = (
        f"The first token gets {mass['with_bos']['value']:.0%} of the attention with BOS and "
        f"{mass['without_bos']['value']:.0%} without."
    )
    if mass["with_bos"]["value"] < 0.5 * mass["without_bos"]["value"]:
        sentence += (
            " Here BOS takes the sink away: put in front of a text, it draws less than the text's own first token "
            "does without it. A sink was compared with a strange first token, which gives no verdict on the claim."
        )
    elif sink_survives(mass):
        sentence += (
            " The sink outlives BOS: it moves to the first token of the text, so this model cannot show what happens "
            "without a sink."
        )
    return sentence
