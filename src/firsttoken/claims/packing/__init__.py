"""Do packing and a fixed BOS token decide where the sink forms?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="packing",
    statement="How documents are packed, and whether BOS is fixed at the start, decides where the sink forms.",
    paper=(
        "share of sink heads {packing.rows.1.sink_rate:.2%} without BOS, {packing.rows.2.sink_rate:.2%} with BOS "
        "fixed, {packing.rows.3.sink_rate:.2%} when a fixed BOS is missing at inference"
    ),
    headline="excess_fixed_bos",
    headline_name="attention to the first token beyond an even share, models with BOS fixed and causal packing",
    format="+.3f",
    unit="held-out texts, from the lowest end of a seed's interval to the highest",
    rule=(
        "For each masking: a fixed BOS surely gives more sink heads (ε = 0.3) than none (a); without it at inference "
        "they are surely fewer (b) and the loss surely higher (c), text by text; a model trained without any BOS has "
        "sinks too, surely in 5 % of its heads (d). Three seeds (lab-notes, lab-gpu) are the unit themselves: the "
        "number is the attention to the first token beyond an even share; each must show 0.03 for (a), (b) and (d), "
        "and 0.05 nats for (c). "
        "Reproduced if all hold, partly if some of (a) to (c) do, else not; inconclusive while causal packing lacks "
        "a run, or if no seed has 0.03 with BOS. A smoke run decides nothing."
    ),
    fixed=(
        "2026-11-25; (d) was added after the measurement and can only make the verdict worse; for seeds 2026-11-28, "
        "mass in place of heads 2026-11-29, after a seed that is not counted"
    ),
    shows_not=(
        "Training of the paper's size: after so short a training models without BOS form no sink, so half of the "
        "paper's table is out of reach. Most rows of the budget cpu are one model."
    ),
    would_change=(
        "The paper's combinations on its number of tokens, with several seeds: above all, whether models without BOS "
        "form a sink then."
    ),
    alternative=(
        "A BOS that is always there could gather attention because it is frequent and the same, not because it "
        "stands first: rows with BOS before each document are the comparison."
    ),
    leads_here="Whether the sink binds to BOS or to the place is settled in training, by how documents are packed.",
    keywords=("document-masking", "intra-document", "concatenation", "pretraining"),
)
