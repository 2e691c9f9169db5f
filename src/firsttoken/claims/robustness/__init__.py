"""Is a model with a sink less sensitive to small changes?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="robustness",
    statement="The sink makes a model less sensitive to small changes of its input.",
    paper="argued from the over-squashing bound, not measured on its own",
    headline="beyond_control",
    headline_name="movement of predictions (untouched: 1), weaker sink minus noise of equal loss",
    format="+.2f",
    practice=True,
    unit="texts",
    rule=(
        "Weakened is by the fewest of 1, 2, 4 and 8 nats that cost 0.08 nats of loss. Reproduced if predictions then "
        "surely move more after a small change, and surely more than under noise on the other scores that costs as "
        "much and leaves the sink. Not reproduced if surely less than under that noise, or if the weakened arm is "
        "surely not above one and no arm is broken (loss more than doubled, which counts for nothing). Partly if the "
        "weakened arm, or the one without a sink, is surely above one; else inconclusive. Surely: the whole 95 % "
        "interval."
    ),
    fixed=(
        "2026-11-25; broken models since 2026-11-27, after the first records; the control, and weakening by cost, on "
        "2026-11-28, before any control was run, for texts that no earlier version had used"
    ),
    shows_not=(
        "Safety against an attacker: changes are small and random or found by a short search. And equal loss is one "
        "way to call two kinds of damage equally large."
    ),
    would_change=(
        "More texts or models, on which a weakened sink surely moves predictions farther than noise of equal loss, or "
        "surely does not; sharper attention, the other control, already moves them more in two of the three."
    ),
    alternative=(
        "A model with a weaker sink is a worse model, and worse models move farther: so damage of equal loss is "
        "the control."
    ),
    leads_here="The last promise: less mixing should mean less sensitivity to small changes of the input.",
    keywords=("adversarial", "typos", "attack", "jailbreak", "repeated-token"),
    quick={"passages": 2, "skip_passages": 0, "suffix": 2, "candidates": 2, "noise_seeds": 1},
)
