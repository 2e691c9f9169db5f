"""Does more or less of a sink make a change travel less or more, at equal damage?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="dose",
    statement=(
        "The sink itself keeps tokens from mixing: the more attention it takes, the less the change of one token "
        "moves later ones, and taking some of it away does more than other damage of the same size."
    ),
    paper="not in the paper, which compares inputs with and without BOS",
    headline="beyond_control",
    headline_name="spread / own with a weaker sink, minus that of the noise control (matched or not)",
    format="+.2f",
    unit="texts",
    rule=(
        "(a) Spread / own, relative to the untouched model, is surely below 1 and at most 0.95 at +1 nat, and surely "
        "above 1 and at least 1.05 at -1 nat. (b) At the smallest weakening that costs 0.08 nats of loss or more, "
        "spread / own surely exceeds that under noise on the ordinary scores at equal loss, with key 0's mass held; "
        "the control's rise in loss must be within 10 % of the dose's on the measured texts, else (b) stays open. Not "
        "reproduced if one of the three intervals (+1 nat, -1 nat, difference to a matched control) lies wholly on "
        "the other side; reproduced if (a) and (b) hold; partly if exactly one does; else it cannot be decided."
    ),
    fixed="2026-11-27, after a pilot on gemma3-270m and smollm2-135m with other passages, before this measurement",
    shows_not="That the sink is the cause, where only (a) holds: (a) alone is close to arithmetic.",
    would_change=(
        "Models and passages on which weakening the sink surely does more, or surely no more, than matched noise on "
        "the other scores."
    ),
    keywords=("causal", "intervention", "steering", "temperature"),
    quick={"passages": 4, "calibration_passages": 3, "edits_per_text": 1},
)
