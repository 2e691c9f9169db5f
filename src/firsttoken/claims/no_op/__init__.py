"""Does a head that has nothing to do rest on the first token?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="no_op",
    statement=("A head with nothing to do attends to the first token, whose value is small: an approximate no-op."),
    paper=(
        "{apostrophe_head.model}, layer {apostrophe_head.layer}, head {apostrophe_head.head}: value norm "
        "{apostrophe_head.bos_value_norm:.0f} at BOS, {apostrophe_head.apostrophe_value_norm:.0f} at the apostrophe"
    ),
    headline="value_norm_ratio",
    headline_name="value norm, first token / others, all heads",
    format=".2f",
    unit="texts",
    rule=(
        "Three parts: the first token's value is less than half as long as the others', with the whole interval; a "
        "head that rests there adds less than half of what it adds otherwise, with the whole interval; there are "
        "heads that leave it by a rule. Reproduced needs all of them and the paper's example: in the paper's model "
        "its own head with both values in the paper's order, in another model at least one head of that kind. Partly "
        "where the first part or the second holds, else not reproduced."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "That resting causes the silence: a small value and high attention are found together. Quiet is not silent, "
        "and only rules that the search can express are named."
    ),
    would_change=(
        "The paper's own head in Gemma 7B, run with the same search, or heads that rest on the first token and still "
        "add as much as elsewhere."
    ),
    alternative=(
        "A small value could follow from a token that stands for little, with no head resting because of it: "
        "values and attention are found together, and which came first is not shown."
    ),
    leads_here="If a sink keeps a model from mixing, single heads must be doing nothing with it: here is how.",
    keywords=("dormant", "inactive", "if-else", "gating", "value"),
    quick={"passages": 12, "norm_passages": 4, "tested": 1},
)
