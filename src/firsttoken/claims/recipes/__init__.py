"""Can training be told what to do with the first token?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="recipes",
    statement="Ways of training that say something about the first token do what the account of the sink promises.",
    paper="not measured there; it ties the sink to the length of training texts and to a BOS that is always there",
    headline="kept",
    headline_name="share of seeds in which a recipe keeps its promise, all five recipes",
    format=".0%",
    unit="seeds of a model with one head, five recipes each",
    rule=(
        "On the task of `smallest`, 64 tokens, ten seeds of each recipe at equal tokens, each beside plain training "
        "from the same seed; a seed has learnt the task when its loss at triggers falls below 0.2 nats (a model that "
        "is trained on some random tokens is rightly unsure), and seeds in which plain training does not learn it are "
        "left out. A growing context promises to end at most 0.02 nats above plain training's loss at triggers, with "
        "fewer scores to compute; a penalty on attention to the first token, to learn the task with less than 0.3 of "
        "the attention there; a reward "
        "for that attention, and 5 % of the tokens replaced, to learn it and have predictions that move less than 0.9 "
        "times as far under noise that has nothing to do with them; BOS in half of the texts, to learn it with a sink "
        "(more than 0.3) on the first token whether BOS is there or not. A promise is kept if it holds in every seed. "
        "Reproduced if all five are, partly if some are, not reproduced if none is; inconclusive with fewer than "
        "eight seeds."
    ),
    fixed=(
        "2026-11-28, before the recorded runs, after a pilot on three other seeds which chose the strength of the "
        "penalty (the smallest tried that left no sink), the 0.2 nats, and promises that can fail"
    ),
    shows_not=(
        "What a recipe does to a language model: this is one head on a toy task, where one strength of each recipe "
        "was tried."
    ),
    would_change="The same recipes in models trained on text, or strengths at which another promise is kept.",
    keywords=("curriculum", "regularisation", "regularization", "augmentation", "denoising", "progressive"),
)
