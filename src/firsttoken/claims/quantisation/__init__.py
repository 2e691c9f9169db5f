"""What does keeping the first token exact save?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="quantisation",
    statement="Sink tokens carry the outliers, so quantising them hurts most (IntactKV, KVSink).",
    paper="discussed there as related work, not measured",
    headline="loss_saved",
    headline_name="loss saved by an exact first token, cache of 4 bits, one scale a token",
    format=".2f",
    practice=True,
    unit="texts",
    rule=(
        "Two parts: the largest activation is the first token's in most texts, and keeping the first token exact "
        "beats the control, with the whole interval, in caches of 4 and of 3 bits in both groupings. Reproduced where "
        "both hold, partly where one does, or the second in some of these settings only, else not reproduced."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "What real kernels do: rounding is simulated, on copies whose weights were already rounded to about four bits."
    ),
    would_change=(
        "The same comparison on unquantised weights, in several families, with the kernels of a real server."
    ),
    alternative="Any token kept exact could save as much: the first is held against others, one at a time.",
    leads_here="A cache that keeps everything may keep it coarsely, but not all of it.",
    keywords=("quantization", "KIVI", "int8", "outliers", "massive-activations", "IntactKV", "KVSink"),
    quick={"passages": 2, "length": 32},
)
