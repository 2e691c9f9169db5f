"""What takes the place of a model in the records of `smallest_training`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from firsttoken import records
from firsttoken.estimates import JSON
from firsttoken.pretraining.run_spec import fingerprint
from firsttoken.pretraining.smallest_training import Setting
from firsttoken.records import Record, Verdict

NAMES = {
    "one-head": "a model with one layer and one head, trained here",
    "one-layer": "a model with one layer, trained here",
}


@dataclass(frozen=True)
class OneLayer:
    """Models with one layer and few heads: what was trained is what the settings say."""

    settings: tuple[Setting, ...]
    slug: str = "one-head"

    def provenance(self) -> JSON:
        return {
            "name": NAMES[self.slug],
            "source": "pretrained",
            "fingerprint": fingerprint([asdict(setting) for setting in self.settings]),
            "quantisation": "",
            "dtype": "float32",
            "device": "cpu",
        }


def stored(
    claim: str,
    settings: Sequence[Setting],
    parameters: JSON,
    measure: Callable[[], JSON],
    version: int,
    fresh: bool,
    variant: str = "",
    judge: Callable[[Record], Verdict | None] | None = None,
    slug: str = "one-head",
) -> Record:
    """The record of such models, called `slug`: an earlier one of the same settings and parameters, or a new one."""
    return records.reuse_or_measure(
        claim,
        model=OneLayer(tuple(settings), slug),
        parameters=parameters,
        texts_hash="generated from seeds",
        measure=measure,
        judge=judge,
        version=version,
        variant=variant,
        fresh=fresh,
    )
