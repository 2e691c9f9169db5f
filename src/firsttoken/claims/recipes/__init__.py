"""Can training be told what to do with the first token?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="recipes",
    statement="Ways of training that say something about the first token do what the account of the sink promises.",
    paper="not measured there; it ties the sink to the length of training texts and to a BOS that is always there",
    headline="kept",
    headline_name="share of seeds in which a recipe keeps its promise, all recipes together",
    format=".0%",
    unit="seeds, as if all recipes of a seed agreed",
    rule=(
        "The task of the smallest sink, 64 tokens, ten seeds at equal tokens, each beside plain training from the "
        "same seed; a seed has learnt it with a loss at triggers below 0.2 nats (who trains on random tokens is "
        "rightly unsure), and seeds that plain training does not teach are left out. A growing context promises a "
        "loss at triggers at most 0.02 nats above plain's, for fewer scores; a penalty on attention to the first "
        "token, the task with less than 0.3 of the attention there; a reward for it, and 5 % of the tokens "
        "replaced, the task and predictions that unrelated noise moves less than 0.9 times as far; BOS in half of "
        "the texts, the task and more than 0.3 on the first token with and without BOS. Kept if so in every seed. "
        "Reproduced if all five are kept, partly if some, not if none; inconclusive with fewer than eight seeds. On "
        "text (lab), eight layers, 256 tokens, BOS fixed, two seeds beside softmax with the same seed: the penalty "
        "promises less than 0.03 of the attention beyond an even share, the reward and replaced tokens a spread over "
        "the changed token's own change below 0.9 times, each at a loss at most 0.05 nats higher; the verdict "
        "likewise, inconclusive until all are trained or if softmax has no sink in both seeds."
    ),
    fixed="2026-11-28, after a pilot on three other seeds, before these runs; for text 2026-11-29, before any run",
    shows_not=(
        "What a recipe does to a language model of useful size: this is one head on a toy task, and small models of a "
        "generated language, one strength each."
    ),
    would_change=(
        "Strengths at which another promise is kept on text, and seeds enough to tell whether the spread follows the "
        "sink."
    ),
    alternative=(
        "A recipe may move the sink by making the task easier or harder: what was learnt, and when, stands beside "
        "each."
    ),
    leads_here="What a design changes in the model, a recipe changes in training.",
    keywords=("curriculum", "regularisation", "regularization", "augmentation", "denoising", "progressive"),
)
