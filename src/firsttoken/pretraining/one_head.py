"""Models of one layer, which are trained where they are measured: what takes the place of a model in their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

from firsttoken.estimates import JSON
from firsttoken.pretraining.run_spec import fingerprint
from firsttoken.pretraining.smallest_training import Setting
from firsttoken.pretraining.trained import TrainedMeasurement
from firsttoken.progress import tracked

NAMES = {
    "one-head": "a model with one layer and one head, trained here",
    "one-layer": "a model with one layer, trained here",
}


@dataclass(frozen=True)
class OneLayer:
    """Models with one layer and few heads: what was trained is what the settings say.

    Attributes:
        parts: values of the records of which this one is put together, by the parameters of each; none where the
            models are still to be trained.
    """

    settings: tuple[Setting, ...]
    slug: str = "one-head"
    parts: Mapping[Any, JSON] = field(default_factory=dict)

    texts_hash = "generated from seeds"

    @property
    def ready(self) -> bool:
        return bool(self.parts)

    @property
    def told(self) -> JSON:
        return {}

    def provenance(self) -> JSON:
        return {
            "name": NAMES[self.slug],
            "source": "pretrained",
            "fingerprint": fingerprint([asdict(setting) for setting in self.settings]),
            "quantisation": "",
            "dtype": "float32",
            "device": "cpu",
        }


class OfOneSetting(Protocol):
    """Parameters that ask for models of one setting, which differ in the seed."""

    @property
    def setting(self) -> Setting:
        """How they are trained."""


A = TypeVar("A", bound=OfOneSetting)


def alone(asked: OfOneSetting, train: bool, fresh: bool) -> OneLayer:
    """The models of one setting, still to be trained."""
    return OneLayer((asked.setting,))


def of_parts(
    part: TrainedMeasurement[A, OneLayer], every: Sequence[A], train: bool, fresh: bool, *, slug: str = "one-head"
) -> OneLayer | None:
    """Models of several settings, each measured and stored by itself, so that an interrupted measurement loses one of
    them at most; None where one is missing and none is to be trained.

    Args:
        every: the parameters of each part.
    """
    parts = {}
    for asked in tracked(every):
        if (record := part.record(asked, train=train, fresh=fresh)) is None:
            return None
        parts[asked] = record.values
    return OneLayer(tuple(dict.fromkeys(asked.setting for asked in every)), slug, parts)
