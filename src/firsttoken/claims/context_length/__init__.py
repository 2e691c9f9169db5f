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
    headline_name="share of heads that are sinks at ε = 0.3, longest context (with BOS in lab only)",
    unit="texts of held-out code, seeds joined",
    rule=(
        "Without BOS: reproduced if the longest context surely has more sink heads (ε = 0.3) than the shortest; "
        "partly if more but not surely; else not reproduced; inconclusive if fewer than two lengths were trained, or "
        "if fewer than 5 % of the heads are sinks at every length, because then there is no sink to compare. With BOS "
        "fixed (budget lab), seeds are the unit and the number is the mass on the first token minus an even share, at "
        "64 tokens: reproduced if it rises by more than 0.03 from windows of 64 to windows of 1024 in both seeds, "
        "with 256 between; not reproduced if it rises by less than 0.02, or falls, in both; else inconclusive. "
        "Without BOS on a graphics card (budget lab-gpu), seeds are the unit: inconclusive if the first model, of "
        "windows of 2048, has fewer than 10 % sink heads (ε = 0.3, 64 tokens), and then no other is trained; "
        "reproduced if both seeds at 2048 exceed both at 128 by 10 points with 512 between; not reproduced if by less "
        "than 5 points where some model has more than 25 %; else inconclusive. A smoke run decides nothing."
    ),
    fixed=(
        "2026-11-25, before the measurement; that for BOS fixed on 2026-11-27, that for lab-gpu on 2026-11-28, each "
        "before any of its runs"
    ),
    shows_not=(
        "That context length has no effect: without BOS hardly a sink forms here, and with BOS fixed the question is "
        "not the paper's. Models, contexts and training are far smaller."
    ),
    would_change=(
        "The same lengths on a budget at which sinks form without BOS: more tokens, longer contexts, several seeds."
    ),
    keywords=("pretraining", "window", "length", "scaling"),
)
