"""How much does a token depend on an earlier one?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="jacobian",
    statement="With the sink, tokens are less sensitive to each other.",
    paper="argued from the over-squashing bound, not measured on its own",
    headline="later_over_own_ratio",
    headline_name="sensitivity of later tokens over the token's own, without BOS / with BOS",
    format=".2f",
    unit="texts",
    rule=(
        "Reproduced where the sensitivity of later tokens to a token, over the token's own sensitivity, without BOS "
        "over with BOS, is above 1 with its whole interval, else not reproduced. Inconclusive where the sink survives "
        "without BOS."
    ),
    fixed=(
        "2026-11-25, before the measurement; on 2026-11-27 the ratio was taken over the change of the source token "
        "itself, which grows without BOS too: after a look at records of the old number, before any of the new one"
    ),
    shows_not=(
        "An effect of large edits: it is the limit of small ones. It too compares texts with and without BOS, which "
        "differ in more than the sink."
    ),
    would_change=(
        "A sink moved by its strength alone, with the text unchanged, that leaves the sensitivity where it was."
    ),
    alternative=(
        "Sensitivity could rise everywhere, for the token itself as for the others: so the ratio of later to own "
        "is what is judged."
    ),
    leads_here="Maps show where attention goes, not how much a token depends on another; derivatives do.",
    keywords=("gradient", "over-squashing", "sensitivity"),
    quick={"passages": 2, "text_tokens": 48},
)
