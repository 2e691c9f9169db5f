"""Can a head do nothing without a sink?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="design",
    statement="A head that has another way of doing nothing needs no sink.",
    paper="not measured there; it follows from its account of the sink as a no-op",
    headline="without_sink",
    headline_name="share of models without a sink, other designs of attention",
    format=".0%",
    unit="seeds, as if all designs of a seed agreed",
    rule=(
        "On the task of the smallest sink, 64 tokens, ten seeds of each design: a gate behind attention, a "
        "learned sink logit, the same fixed at zero (off by one), sigmoid weights. A design removes the sink only "
        "if every seed learns the task (loss at triggers below 0.05 nats) and every one puts less than 0.3 of "
        "what its row adds up to on the first token away from triggers (a row that adds up to less than 0.1 rests "
        "nowhere), while plain softmax puts more than that there in every seed. Reproduced if all four remove it, "
        "partly if some do, not reproduced if none; inconclusive if plain softmax has no sink in every seed. On text "
        "(lab), eight layers, 256 tokens, BOS fixed, two seeds of softmax, gate, sink logit and sigmoid: removed if "
        "the first token gets less than 0.03 beyond an even share in each seed, of texts of 64 tokens, at a loss no "
        "more than 0.05 nats above that of softmax with the same seed; the verdict likewise. Of the block around a "
        "head (ten seeds of the smallest task): two heads of half the width of which one has a learned sink logit "
        "(split heads), and a sigmoid of a token's state that multiplies what the block adds to it (gated depth). "
        "Each removes the sink as above, from every head, if two plain heads have one in some head of every seed, and "
        "plain softmax in every seed; the verdict likewise."
    ),
    fixed=(
        "2026-11-27, for text and blocks 2026-11-29, before the recorded runs; each design of attention had been "
        "tried once before on one head (a gate left no sink, sigmoid rows added up to little, a sink logit that "
        "begins at zero left the first token its role), blocks never"
    ),
    shows_not=(
        "What a design does in a language model of useful size: one head on a toy task, and small models after a "
        "short training on a generated language, two seeds each, all with one learning rate."
    ),
    would_change=(
        "The same designs in larger models on natural text, each with a learning rate of its own, and more seeds."
    ),
    alternative=(
        "A design that removes the sink may do so by training more slowly or worse, so what was learnt is looked "
        "at first."
    ),
    leads_here="If a sink is a way to do nothing, a head that has another way should need none.",
    keywords=("softmax1", "gated", "gpt-oss", "off-by-one", "register", "alternatives"),
)
