"""The smallest sink: one head that has something to do now and then."""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="smallest",
    statement=(
        "A head that has nothing to do most of the time rests on the first token, the more surely the longer the text."
    ),
    paper="not in the paper; its if-else head in the smallest form, on a task of arXiv 2410.13835",
    headline="rests_on_first",
    headline_name="share of seeds whose head rests on the first token, 64 tokens",
    format=".0%",
    unit="seeds of a model with one head",
    rule=(
        "A seed has learnt the task when its loss at triggers is below 0.05 nats; its head rests where it then puts "
        "more than half of its attention away from triggers. Reproduced if surely more than half of the seeds that "
        "learnt it rest on the first token at 64 tokens (Wilson interval), and if that share rises from 8 to 128 "
        "tokens (Cochran-Armitage, two-sided, p < 0.05); partly if only the first holds; not reproduced if surely "
        "fewer than half rest there; else inconclusive."
    ),
    fixed=(
        "2026-11-27, before the recorded runs and after trials at 16 and 64 tokens, in which every seed that had "
        "learnt the task rested on the first token; that half of the attention is the threshold was written after "
        "that look"
    ),
    shows_not=(
        "Anything about a language model: one layer, one head, a small alphabet. It is a toy in which everything can "
        "be seen, and its answer on text length is a toy's."
    ),
    would_change="The same count on another task with a head that is busy now and then, and with more than one layer.",
    alternative=(
        "The task may make a sink by its design: most queries have nothing to look up. The length of the text and "
        "the presence of BOS are varied to see what it hangs on."
    ),
    leads_here="In a model with one head it can be seen from the first step of training to the last.",
    keywords=("toy", "backcopy", "bigram", "trigger"),
)
