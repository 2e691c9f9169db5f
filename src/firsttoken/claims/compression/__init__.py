"""May the heads that rest on the first token be given less than others?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="compression",
    statement=(
        "A head that rests on the first token can be removed, shortened or stored coarsely at less loss than another, "
        "and a coarse cache keeps most by keeping that token exact."
    ),
    paper="discussed there as a consequence, not measured; heads: arXiv 2601.06787",
    headline="removal_saving",
    headline_name="loss saved by removing heads at rest, not random ones",
    format=".2f",
    practice=True,
    unit="windows of one document and random draws",
    rule=(
        "Four parts, by the paired difference of the loss, its interval over windows and random draws. Removing, "
        "shortening or coarsening the fifth of the heads most at rest must surely cost less than the same to random "
        "heads and to random heads of their layers; at two bits, a cache with the first token exact must surely cost "
        "less than one with another exact. Reproduced where all four hold; not reproduced where one is surely the "
        "other way and none holds; inconclusive where none is sure; else partly. Where fewer parts were measured, the "
        "verdict is the one that the others could not change, else inconclusive."
    ),
    fixed=(
        "2026-11-28, before the measurement; the last sentence on 2026-11-29, before a model was measured in fewer "
        "parts"
    ),
    shows_not=(
        "Time or memory of any kernel: work and bytes are counted, rounding is simulated. The rule judges by the loss "
        "on one document, which the questions of the chapter do not follow; and nothing is trained again after a "
        "change, which would win back a part of every loss. One model of each kind cannot say what makes them differ."
    ),
    would_change=(
        "Models of one family and several sizes, and their checkpoints in training: they would say what makes heads "
        "at rest dispensable in one model and not in another."
    ),
    alternative=(
        "Heads at rest stand in some layers more than in others, and layers differ in what they cost: heads of the "
        "same layers are the comparison."
    ),
    leads_here="If a head at rest does nothing, it could be removed, shortened or stored coarsely.",
    keywords=("pruning", "sparsity", "quantization", "GQA", "head-importance", "efficiency"),
    quick={
        "windows": 2,
        "length": 32,
        "window": 16,
        "draws": 2,
        "long_windows": 2,
        "long_length": 64,
        "needle_length": 192,
        "task_questions": 8,
        "task_draws": 2,
    },
)
