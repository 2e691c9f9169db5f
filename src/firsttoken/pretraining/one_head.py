"""What takes the place of a model in the records of `smallest_training`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from firsttoken.estimates import JSON
from firsttoken.pretraining.run_spec import fingerprint
from firsttoken.pretraining.smallest_training import Setting


@dataclass(frozen=True)
class OneHead:
    """Models with one layer and one head: what was trained is what the settings say."""

    settings: tuple[Setting, ...]
    slug: str = "one-head"

    def provenance(self) -> JSON:
        return {
            "name": "a model with one layer and one head, trained here",
            "source": "pretrained",
            "fingerprint": fingerprint([asdict(setting) for setting in self.settings]),
            "quantisation": "",
            "dtype": "float32",
            "device": "cpu",
        }
