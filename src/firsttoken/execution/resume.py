"""The state of a streamed pass after its last finished layer, so that a killed one need not start again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from firsttoken.files import whole_file


@dataclass(frozen=True)
class Finished:
    """All that the layers still to come depend on."""

    layers: int  # how many are finished
    hidden: Tensor  # (text, token, dim), the output of the last finished one
    observed: dict[int, Tensor]  # layer -> (row, ...)
    rows: list[int]  # of what was observed, how many belong to each batch


class Resume:
    """One file, replaced as a whole after each layer.

    Two processes at the same pass replace each other's file with an equally valid one, so there is no lock.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.safetensors"

    def save(self, finished: Finished) -> None:
        tensors = {f"observed.{layer}": seen.contiguous() for layer, seen in finished.observed.items()}
        tensors["hidden"] = finished.hidden.cpu()
        with whole_file(self.path) as partial:
            metadata = {"layers": str(finished.layers), "rows": json.dumps(finished.rows)}
            save_file(tensors, partial, metadata=metadata)

    def load(self) -> Finished | None:
        """The saved state; None where there is none, or none that can be read."""
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                layers, rows = int(metadata["layers"]), json.loads(metadata["rows"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None
        hidden = tensors.pop("hidden")
        observed = {int(name.removeprefix("observed.")): seen for name, seen in tensors.items()}
        return Finished(layers, hidden, observed, rows)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        # Files of writers that were killed.
        for old in self.path.parent.glob(f".{self.path.stem}.*.partial"):
            old.unlink(missing_ok=True)
