"""Does the sink belong to the token or to the place?"""

from firsttoken.claims.base import Claim

CLAIM = Claim(
    id="where",
    statement=("The sink sits on the first place whatever stands there, unless BOS was always there in training."),
    paper="argued from training with and without a fixed BOS, see the claim on packing",
    headline="first_token_kept",
    headline_name="first-token mass kept with a random first token",
    format=".0%",
    unit="texts",
    rule=(
        "The sink belongs to the first place whatever stands there, unless BOS was always there in training; "
        "then it belongs to BOS in first place. Decided by half of the first token's attention staying or "
        "going."
    ),
    fixed="2026-11-25; reworded after the first records, see the history of verdict.py",
)
