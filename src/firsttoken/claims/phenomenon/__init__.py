"""What is a sink? Every head of a model on one text."""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="phenomenon",
    statement="Heads of a language model attend strongly to the first token of a text.",
    paper="the premise of the paper; its figures show single heads",
    headline="",
    headline_name="share of attention on the first token",
    format=".0%",
    unit="one text, so no interval",
    rule=(
        "Reproduced where the first token gets at least three times an even share of the attention on this one "
        "passage, partly from one and a half times, else not reproduced."
    ),
    fixed="2026-11-25, before the measurement",
    shows_not=(
        "What the sink is for, or that other texts look alike: it is one short passage without an interval. The count "
        "of heads depends on the threshold."
    ),
    alternative=(
        "A first token could be read often because it is worth reading: a heading, a name, a start sign. The maps "
        "of other passages, whose first words have nothing in common, speak against it, but not where the first token "
        "is BOS each time."
    ),
    leads_here="First of all, what it looks like.",
    keywords=("BOS", "heatmap", "visualization", "heads"),
)
