"""Which tokens must a bounded cache keep?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="kv_cache",
    statement=("Keeping the first tokens in the cache is enough to keep a sliding window working (StreamingLLM)."),
    paper="discussed there as related work, not measured",
    headline="perplexity_ratio",
    headline_name="perplexity, window with four first tokens / full cache",
    format=".2f",
    practice=True,
    unit="windows of one document",
    rule=(
        "Reproduced where four first tokens undo more than half of the harm that a window alone does, with the whole "
        "interval, and surely more than four random tokens do (the two intervals do not meet); partly where they "
        "surely undo some; else not reproduced. Inconclusive where the window alone does no clear harm (the interval "
        "of the increase reaches down to 0)."
    ),
    fixed=(
        "2026-11-25, before the measurement; on 2026-11-30, after the records, the random tokens became a draw for "
        "each text, the rule stayed"
    ),
    shows_not=(
        "How a served model answers: perplexity and small retrieval tasks on one document are measured, and what has "
        "left the window stays lost whatever is kept beside it."
    ),
    would_change=(
        "Models without a sink, by gating or learned sink logits, that need the first tokens in the window all the "
        "same."
    ),
    alternative=(
        "A few more tokens in the cache could help whatever they are: as many others are kept for comparison."
    ),
    leads_here="What follows for whoever serves a model: what a cache may forget.",
    keywords=("StreamingLLM", "eviction", "H2O", "kvpress", "sliding-window", "key-value"),
    quick={"windows": 2, "length": 96, "window": 48, "needle_length": 192},
)
