"""Files: where chapters and results are, names that are safe in a file system, writing that is whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from firsttoken.errors import FirstTokenError

_BESIDE = Path(__file__).resolve().parents[2]
# Whether this code lies in a checkout, beside its notebooks and records, or in a folder of installed packages.
INSTALLED = not (_BESIDE / "pyproject.toml").is_file()
# The folder with `notebooks`, `results` and `book`; an installed copy has none and works where it is called.
ROOT = Path.cwd() if INSTALLED else _BESIDE


def needs_checkout(root: Path = ROOT) -> None:
    """Refuse what works on chapters where there are none.

    Raises:
        FirstTokenError: `root` has no chapters.
    """
    if not (root / "notebooks").is_dir():
        raise FirstTokenError(
            f"There are no chapters in {root}; they come with the source: "
            "git clone https://github.com/firsttoken/firsttoken, then `make install` and this command inside it."
        )


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
