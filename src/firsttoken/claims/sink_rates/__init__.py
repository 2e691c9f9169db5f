"""How many heads are sinks?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="sink_rates",
    statement=("Many heads of LLaMa 3.1 attend mostly to the first token, and more of them do in larger models."),
    paper=(
        "share of heads above ε = {llama.epsilon}: {llama.meta-llama-llama-3-1-8b.sink_rate:.2%} (8B), "
        "{llama.meta-llama-llama-3-1-70b.sink_rate:.2%} (70B), {llama.meta-llama-llama-3-1-405b.sink_rate:.2%} (405B)"
    ),
    headline="sink_rate",
    headline_name="share of heads that are sinks at ε = {epsilon}",
    unit="texts",
    rule=(
        "A model of the paper's table is reproduced within 5 points of its number (other passages are used), partly "
        "within 15, else not reproduced. No other model, whatever it shows, can confirm or refute it: inconclusive; "
        "the sentence says whether sinks are there, more than a quarter of the heads at ε = 0.3 with 95 % confidence."
    ),
    fixed=(
        "2026-11-25, before the measurement; on 2026-11-27, after the records, other models became inconclusive, as "
        "in the chapter on scale (they had been partly reproduced)"
    ),
    shows_not=(
        "Anything about LLaMa 3.1, none of which was run. A few small models of several families cannot show a trend "
        "with size, and a count of heads says nothing about what the sink is for."
    ),
    would_change=(
        "The count on LLaMa 3.1 8B, 70B and 405B with the paper's number of passages: the table stands or falls with "
        "it."
    ),
    alternative=(
        "Attention to the first token could be a trait of the texts chosen: many short passages of all kinds are "
        "read, but they are this book's own."
    ),
    leads_here="One passage shows that sinks exist; many passages show how many heads have one.",
    keywords=("epsilon", "threshold", "metric"),
    quick={"passages": 8, "longest": 256, "sweep_tokens": 2048},
)
