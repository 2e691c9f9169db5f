"""Does a head that has nothing to do rest on the first token?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="no_op",
    statement=("A head with nothing to do attends to the first token, whose value is small: an approximate no-op."),
    paper=(
        "{apostrophe_head.model}, layer {apostrophe_head.layer}, head {apostrophe_head.head}: value norm "
        "{apostrophe_head.bos_value_norm:.0f} at BOS, {apostrophe_head.apostrophe_value_norm:.0f} at the "
        "apostrophe"
    ),
    headline="value_norm_ratio",
    headline_name="value norm, first token / others",
    format=".2f",
    unit="texts",
    rule=(
        "Three parts, each with its interval: the first token's value is small, a head adds less while it "
        "rests there, and there are heads that leave it by a rule. Reproduced needs the paper's example too: "
        "in the paper's model its own head with both values in the paper's order, in another model at least "
        "one head of that kind. Partly where some parts hold."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "That resting causes the silence: a small value and high attention are found together. Quiet is not silent,"
        " and only rules that the search can express are named."
    ),
    would_change=(
        "The paper's own head in Gemma 7B, run with the same search, or heads that rest on the first token and "
        "still add as much as elsewhere."
    ),
)
