"""Do packing and a fixed BOS token decide where the sink forms?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="packing",
    statement="How documents are packed, and whether BOS is fixed at the start, decides where the sink forms.",
    paper=(
        "share of sink heads {packing.rows.1.sink_rate:.2%} without BOS, {packing.rows.2.sink_rate:.2%} with BOS "
        "fixed, {packing.rows.3.sink_rate:.2%} when a fixed BOS is missing at inference"
    ),
    headline="sink_rate_fixed_bos",
    headline_name="share of heads that are sinks at ε = 0.3, BOS fixed",
    unit="held-out texts, seeds joined",
    rule=(
        "Four statements for each masking that was trained: a fixed BOS surely gives more sink heads (ε = 0.3) than "
        "none (a); without it at inference they are surely fewer (b) and the loss surely higher (c), text by text; a "
        "model trained without any BOS has sinks too, surely in 5 % of its heads (d). With three seeds (lab-notes, "
        "lab-gpu) seeds are the unit and the number is the mass on the first token beyond an even share: every seed "
        "must show a difference, of 0.03 or of 0.05 nats. Reproduced if all hold, partly if some of (a) to (c) do, "
        "else not reproduced; inconclusive while causal packing lacks a run, or if no seed has 0.03 with BOS. A smoke "
        "run decides nothing."
    ),
    fixed=(
        "2026-11-25; (d), half of the paper's table, was added after the measurement and can only make the verdict "
        "worse; for three seeds 2026-11-28; mass in place of heads 2026-11-29, after seed 0 of lab-notes, "
        "which is not counted"
    ),
    shows_not=(
        "What happens in training of the paper's size. With short training on code, models without BOS form no sink, "
        "so half of the paper's table is out of reach here. Nor how much another seed would differ: most rows are one "
        "model, and where there are two they disagree on what a missing BOS costs."
    ),
    would_change=(
        "The paper's combinations on its number of tokens, with several seeds: above all, whether models without BOS "
        "form a sink then."
    ),
    keywords=("document-masking", "intra-document", "concatenation", "pretraining"),
)
