"""Rank collapse, path sums and the over-squashing bound on real attention maps."""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="theory",
    statement=(
        "Rank collapse implies representational collapse, and a sum over attention paths bounds how far a change can "
        "travel."
    ),
    paper="a proposition and a theorem; no numbers",
    headline="bound_over_jacobian",
    headline_name="powers of ten between the bound and the measured sensitivity",
    format=".1f",
    unit="texts",
    rule=(
        "Theorems cannot fail, but a derivation or its code can: not reproduced where anything is violated. Partly "
        "where the statements hold but the bound may exceed the measured Jacobian by more than a factor of ten: it "
        "then explains the direction of the effect and not its size. Reproduced if the bound surely stays within that "
        "factor, the sink goes with BOS, and path sums from text tokens are surely larger without it; else partly, "
        "also where the bound was not compared."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "That the bound explains the size of any effect: it holds and lies many orders of magnitude above what is "
        "measured, with this book's own estimate of its constant; the paper claims no tightness. That the sink keeps "
        "representations from collapsing: see which way they move. What training does."
    ),
    would_change=(
        "A bound close enough to the measured Jacobian that a change of the sink predicts a change of the sensitivity."
    ),
    alternative="A bound can hold and explain nothing: it would hold as well if the sink had no part in the effect.",
    leads_here="What can be proved about all of this, and how close the proofs come to a real model.",
    keywords=("over-squashing", "rank-collapse", "bound", "proof"),
    quick={"passages": 2, "text_tokens": 32, "bounded": 2, "bound_text_tokens": 16, "repeats": 32},
)
