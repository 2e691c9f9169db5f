"""Does more or less of a sink make a change travel less or more, at equal damage?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="dose",
    statement=(
        "The sink itself keeps tokens from mixing: the more attention it takes, the less the change of one token "
        "moves later ones, and taking some of it away does more than noise of the same cost."
    ),
    paper="not in the paper, which compares inputs with and without BOS",
    headline="beyond_control",
    headline_name="spread of a change (untouched: 1), weaker sink minus noise of equal loss",
    format="+.2f",
    unit="texts",
    rule=(
        "(a) Spread / own, relative to the untouched model, is surely below 1 and at most 0.95 at +1 nat, surely "
        "above 1 and at least 1.05 at -1. (b) At the smallest weakening that costs 0.08 nats of loss it surely "
        "exceeds noise on the ordinary scores at equal loss, key 0's mass held; open unless the strongest noise "
        "surely costs more. Not reproduced if one of these three intervals lies wholly on the other side of 1 or 0; "
        "reproduced if (a) and (b) hold, partly if one does; else it cannot be decided."
    ),
    fixed=(
        "2026-11-27 after a pilot; changed on 2026-11-28, since noise of a strength found on other texts was "
        "unmatched, before measuring on unused texts"
    ),
    shows_not=(
        "That the sink does this beyond any redistribution: sharper attention to the other tokens moves spread "
        "too. (a) alone is close to arithmetic."
    ),
    would_change=(
        "Models and passages on which weakening the sink surely does no more than noise of equal loss, or surely more "
        "than any redistribution of equal loss."
    ),
    alternative=(
        "Any damage to attention may loosen a model. So a weaker sink is held against noise that costs as much, "
        "with the sink left as it was."
    ),
    leads_here=(
        "Leaving BOS out changes more than the sink. Here the sink alone is turned up and down, with the text "
        "unchanged."
    ),
    keywords=("causal", "intervention", "steering", "temperature"),
    quick={"passages": 2, "calibration_passages": 2, "edits_per_text": 1, "noise_seeds": 1, "length": 32, "gains": 2},
)
