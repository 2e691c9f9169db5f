"""Do larger models have more of it?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="scale",
    statement="In the largest model most of the attention goes to the first token.",
    paper="{mass_405b.value:.0%} of the attention mass in LLaMa 3.1 405B",
    headline="mass_first",
    headline_name="attention mass on the first token",
    unit="texts",
    rule=(
        "The claim is about one model: LLaMa 3.1 405B counts as reproduced within 10 points of the paper's mass, as "
        "partly within 20, else not reproduced. No other model, whatever it shows, can confirm or refute it: "
        "inconclusive."
    ),
    fixed="2026-11-25; first version judged other models too, changed after their records",
    shows_not=(
        "Whether attention mass grows with size: the models here differ in family, depth, training data and use of "
        "BOS as well as in size, and none is near the paper's."
    ),
    would_change=("One pass over LLaMa 3.1 405B, or a family of models that differ in size alone."),
    alternative=(
        "Models that differ in size differ in depth, data, head size and use of BOS too, and each of these could "
        "move the mass."
    ),
    leads_here=(
        "Counting heads says little about how much attention is meant; here the two are told apart, by size of model."
    ),
    keywords=("Llama", "size", "parameters", "405B"),
    quick={"passages": 12},
)
