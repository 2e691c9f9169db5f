"""Is a model with a sink less sensitive to small changes?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="robustness",
    statement="The sink makes a model less sensitive to small changes of its input.",
    paper="argued from the over-squashing bound, not measured on its own",
    headline="sensitivity_ratio",
    headline_name="sensitivity without the sink / with it",
    format=".2f",
    practice=True,
    unit="texts",
    rule=(
        "Reproduced if predictions surely move more after a small change both without a sink and with a "
        "weakened one; partly if in one of the two, else not reproduced. Surely: the whole 95 % interval is above "
        "one."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "Safety against an attacker: changes are small and random or found by a short search. Taking the sink away "
        "makes a model worse as well, and a worse model may be easier to move for that reason."
    ),
    would_change=(
        "A control that harms the loss as much and leaves the sink: if it moves predictions as far, the sink is not"
        " what protects."
    ),
    quick={"passages": 6, "candidates": 6},
)
