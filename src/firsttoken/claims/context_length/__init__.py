"""Does training on longer contexts make sinks stronger?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="context_length",
    statement="Pretraining on longer contexts makes sinks stronger.",
    paper=(
        "share of sink heads {context_length.128:.1%} at 128 tokens, {context_length.2048:.0%} at 2048 (digitised "
        "from a figure)"
    ),
    headline="sink_rate_longest",
    headline_name="share of sink heads at ε = 0.3, longest context (lab: not what is judged)",
    unit="held-out texts, from the lowest end of a seed's interval to the highest",
    rule=(
        "Without BOS: reproduced if the longest context surely has more sink heads (ε = 0.3) than the shortest, "
        "partly if more but not surely, else not; inconclusive with one length, or with under 5 % sink heads at "
        "all. BOS fixed (lab): seeds are the unit, the number is the mass on the first token minus an even share, "
        "at 64 tokens; reproduced if it rises by more than 0.03 from 64 to 1024 in both seeds with 256 between, "
        "not if by less than 0.02 in both. Without BOS on a graphics card (lab-gpu): inconclusive, and nothing "
        "else is trained, if the first model (2048) has under 10 % sink heads; reproduced if both seeds at 2048 "
        "exceed both at 128 by 10 points with 512 between, not if by under 5 where some model exceeds 25 %. Else "
        "inconclusive, as is a smoke run."
    ),
    fixed="2026-11-25; for BOS fixed 2026-11-27, for lab-gpu 2026-11-28; each before any of its runs",
    shows_not=(
        "That context length has no effect: without BOS hardly a sink forms here, and with BOS fixed the question is "
        "not the paper's and longer windows see BOS less often. Models, contexts and training are far smaller."
    ),
    would_change=(
        "The same lengths on a budget at which sinks form without BOS: more tokens, longer contexts, several seeds."
    ),
    alternative=(
        "At equal tokens a longer window sees the start of a window less often, and its loss is on other "
        "positions: either could move the sink by itself."
    ),
    leads_here="From what a sink does to where it comes from: the first of the paper's training questions.",
    keywords=("pretraining", "window", "length", "scaling"),
)
