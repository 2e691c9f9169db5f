"""What is lost without the first token?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="removal",
    statement="A model trained with BOS at the start loses its abilities without it.",
    paper=(
        "{removal.model}, with and without BOS: ARC-E {removal.ARC-E.with:.2%} and {removal.ARC-E.without:.2%}, "
        "HellaSwag {removal.HellaSwag.with:.2%} and {removal.HellaSwag.without:.2%}, RULER-4096 "
        "{removal.RULER-4096.with:.2%} and {removal.RULER-4096.without:.2%}"
    ),
    headline="loss_increase",
    headline_name="increase of the loss without BOS, texts of {length} tokens",
    format=".2f",
    unit="texts",
    rule=(
        "About models trained with BOS in first place. Reproduced if deleting it surely costs more than half a nat "
        "per token and surely leaves less than half of what the tasks show above chance, over questions; partly if it "
        "surely costs anything; else not reproduced. Inconclusive for other models."
    ),
    fixed=(
        "2026-11-25, before the records, after which sentences were reworded, not the rule; that the tasks decide by "
        "their interval over questions, not by a bare share, was added on 2026-11-27, after the records"
    ),
    shows_not=(
        "That long texts suffer as much: beyond a few hundred tokens the cost is a fraction of this. Why abilities "
        "go. Deleting BOS takes a resting place away and begins the text as no training text began; the further arms "
        "separate these only in part. The tasks are small ones made here, not the paper's."
    ),
    would_change=(
        "The paper's tasks on Gemma 7B, with an arm that keeps the beginning of the text and takes only the sink away."
    ),
    alternative=(
        "A model without its BOS reads a text that begins as none did in training. Arms that keep the beginning "
        "and close only the sink separate the two in part."
    ),
    leads_here="If it does so much, taking it away should cost something: abilities, not only loss.",
    keywords=("ablation", "knockout", "zero-shot", "tokenizer"),
    quick={"passages": 2, "length": 64, "needle_length": 192, "task_questions": 8},
)
