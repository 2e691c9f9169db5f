"""When does the sink appear in training?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="emergence",
    statement="A sink appears in training; a smaller learning rate and no weight decay leave fewer sink heads.",
    paper="discussed there as related work (Gu et al., arXiv 2410.10781)",
    headline="",
    headline_name="share of sink heads as in the budget",
    unit="texts of held-out code, from the lowest end of a seed's interval to the highest",
    rule=(
        "The sentence says when the sink appeared and counts which of Gu et al.'s findings hold: a smaller learning "
        "rate surely has fewer sink heads (ε = 0.3), and so surely has no weight decay. Reproduced if all that were "
        "trained hold, partly if some do, else not reproduced; inconclusive without the run as in the budget or "
        "without any to compare it with. A smoke run decides nothing."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "When sinks appear in models of useful size. A short training on code has its own schedule, and what is "
        "changed is changed one at a time."
    ),
    alternative=(
        "Learning rate and weight decay change how far a model gets in the same time, so a weaker sink could be a "
        "younger model: the loss stands beside every number."
    ),
    leads_here="When in training does it appear, and which settings move it?",
    keywords=("optimizer", "learning-rate", "weight-decay", "training-dynamics"),
)
