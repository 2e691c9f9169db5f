"""Does the sink belong to the token or to the place?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="sink_position",
    statement=("The sink sits on the first place whatever stands there, unless BOS was always there in training."),
    paper="argued from training with and without a fixed BOS, see the claim on packing",
    headline="first_token_kept",
    headline_name="first-token mass kept with a random first token",
    format=".0%",
    unit="texts",
    rule=(
        "Where the tokenizer prepends BOS, the sink should belong to BOS: surely less than half of the first token's "
        "attention stays when a random token takes its place, and less than half when BOS is left out. Elsewhere it "
        "should belong to the place: surely more than half stays with a random token there, and the former first "
        "token, moved into the middle, draws less than half of what the token draws that stands first then. "
        "Reproduced if both statements hold, partly if one does."
    ),
    fixed="2026-11-25, with the code that measures; the sentences were reworded after the first records, the rule not",
    shows_not=(
        "How training makes the difference: the models differ in more than how they treat BOS. The packing "
        "experiments speak to that. The rule judges random tokens of the passages alone: a BOS put first where the "
        "tokenizer puts none is shown and not judged, and draws little in one of these models."
    ),
    would_change=(
        "A model trained with BOS fixed that keeps its sink under another first token, or one trained without that "
        "loses it there."
    ),
    alternative=(
        "A first token that every query sees could be chosen by position, by what stands there, or by what it has "
        "become in the first layers; each is changed by itself."
    ),
    leads_here="What is it that heads attend to: the token that stands first, or the first place?",
    keywords=("token-identity", "rotary", "RoPE", "position"),
    quick={"passages": 4},
)
