"""Files: where the checkout is, names that are safe in a file system, writing that is whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def slug(name: str) -> str:
    """A model's name as it appears in file names and `{result}` keys: `meta-llama/Llama-3.1-8B` ->
    `meta-llama-llama-3-1-8b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a killed run, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def cache_folder() -> Path:
    """Where assembled and dequantised weights are kept; `FIRSTTOKEN_CACHE` moves it."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "firsttoken"
    return Path(os.environ.get("FIRSTTOKEN_CACHE", default))
