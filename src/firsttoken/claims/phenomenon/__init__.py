"""What is a sink? Every head of a model on one text."""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="phenomenon",
    statement="Heads of a language model attend to the first token, whatever it says.",
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
    keywords=("BOS", "heatmap", "visualization", "heads"),
)
