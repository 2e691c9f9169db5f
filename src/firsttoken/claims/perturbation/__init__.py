"""How far does the change of one word travel?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="perturbation",
    statement="With the sink, the effect of changing one token stays local until the late layers.",
    paper="figure only, Gemma 7B: without BOS the change reaches more tokens, in earlier layers",
    headline="spread_over_own_ratio",
    headline_name="spread over the edited token's own change, without BOS / with BOS",
    format=".2f",
    unit="texts",
    rule=(
        "Reproduced where the spread to later tokens over the edited token's own change, without BOS over with BOS, "
        "is above 1 with its whole interval, else not reproduced. Inconclusive where the first token keeps more than "
        "half of its attention without BOS: then removing BOS does not remove the sink, and the comparison says "
        "nothing about sinks; also where only one of the two was run."
    ),
    fixed=(
        "2026-11-25; the condition on the sink after a first look, the same day; on 2026-11-27 the ratio was taken "
        "over the edited token's own change: after records of the old number, before any of the new; on 2026-11-30 a "
        "wrong word was put right"
    ),
    shows_not=(
        "That the sink alone does it: leaving BOS out also gives a model a beginning that it never saw in training. "
        "Anything, where the sink outlives BOS. Nor at which layer a change stops: a mean over layers is judged."
    ),
    would_change=(
        "A larger model that keeps its sink under such an edit and spreads it as far as without one, or the same "
        "spread after a change that leaves the sink alone and disturbs as much."
    ),
    alternative=(
        "A text without BOS begins as no training text began. A model that is disturbed by that could spread a "
        "change farther without the sink having anything to do with it."
    ),
    leads_here="Now what it may be for: the paper's first answer is that a change of one token stays where it is.",
    keywords=("over-mixing", "oversmoothing", "robustness", "sensitivity"),
    quick={"edits": 12},
)
