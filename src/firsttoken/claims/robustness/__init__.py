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
        "Partly if predictions surely move more after a small change without a sink, or with a weakened one; surely: "
        "the whole 95 % interval is above one. An arm that more than doubles the loss has broken the model and counts "
        "for nothing. Reproduced needs a control that costs as much loss and leaves the sink, which has not been run. "
        "Not reproduced if the weakened arm is surely not above one and no arm is broken; else inconclusive."
    ),
    fixed=(
        "2026-11-25, before the measurement; made stricter on 2026-11-27, after the records: broken models count for "
        "nothing, and without a control of equal loss partly is the most"
    ),
    shows_not=(
        "Safety against an attacker: changes are small and random or found by a short search. Taking the sink away "
        "makes a model worse as well, and a worse model may be easier to move for that reason."
    ),
    would_change=(
        "A control that harms the loss as much and leaves the sink: if it moves predictions as far, the sink is not "
        "what protects."
    ),
    keywords=("adversarial", "typos", "attack", "jailbreak", "repeated-token"),
    quick={"passages": 6, "candidates": 6},
)
