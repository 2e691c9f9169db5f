"""Is attention smoother without the sink?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="smoothing",
    statement="Without the sink, attention is smoother: each row spreads over more tokens.",
    paper="figure only, Gemma 7B: attention maps look smoother without BOS",
    headline="effective_tokens_ratio",
    headline_name="effective number of tokens without BOS / with BOS",
    format=".2f",
    unit="texts",
    rule=(
        "The paper names no measure. Shannon entropy decides, as the one that counts every token: reproduced where "
        "the whole interval of the ratio is above 1, else not reproduced. Rényi-2 is reported and decides nothing. "
        "Inconclusive where the sink survives without BOS."
    ),
    fixed="2026-11-25; that Shannon entropy alone decides was fixed after a first look, the same day",
    shows_not=(
        "That smoother maps mix more: attention is not all that moves information. Measures of smoothness disagree, "
        "and what is left of a row without its first entry becomes more uneven, not less."
    ),
    would_change=("The maps of Gemma 7B itself, and one measure of smoothness named by the paper."),
    alternative=(
        "Rows without their largest entry are smoother by arithmetic alone. What remains of a row, made to add up "
        "to one again, is looked at as well."
    ),
    leads_here="If a change spreads farther without the sink, the attention maps should show why.",
    keywords=("entropy", "oversmoothing", "Rényi", "rank"),
    quick={"passages": 4},
)
