"""Files: where chapters and results are, names that are safe in a file system, writing that is whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from firsttoken.errors import FirstTokenError

_SHOWN = 100  # characters of what was typed, in a sentence
_LONGEST_SLUG = 100  # with a variant and an ending it is still a file name
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
            "clone the project's repository with git, then `make install` and this command inside it."
        )


def slug(name: str) -> str:
    """A model's name as it appears in file names and `{result}` keys: `meta-llama/Llama-3.1-8B` ->
    `meta-llama-llama-3-1-8b`.

    Letters outside ASCII cannot appear there, so a name that has some, or no letter at all, ends with a few digits of
    its hash: `千问` -> `model-` and eight of them.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain and len(plain) <= _LONGEST_SLUG and not any(c.isalnum() and not c.isascii() for c in name):
        return plain
    return f"{plain[:_LONGEST_SLUG] or 'model'}-{_digits(name)}"


def own_slug(name: str, owner: str, store: Path) -> str:
    """The slug of `name` for one `owner` in a store of records: whoever comes second gets a longer one.

    Two checkpoints `run-a/step-500` and `run-b/step-500` have the same last name; with the same slug one's records
    would take the place of the other's.

    Args:
        owner: what tells two models of one name apart, such as the whole path.
        store: folder of the records, where the first owner of each slug is noted.
    """
    plain = slug(name)
    note = store / ".models" / plain
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, encoding="utf-8", errors="surrogateescape") as written:
            written.write(owner)
            written.flush()
            with suppress(FileExistsError):
                os.link(written.name, note)  # exists with its whole text, or fails where somebody was faster
        first = note.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return plain  # nothing can be written there, records neither
    return plain if first == owner else f"{plain}-{_digits(owner)}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()[:8]


def begins_as_path(name: str) -> bool:
    """Whether a name is written as a path, as no hub id or name of ours is; other paths need a look at the disk."""
    return name.startswith((".", "/", "~"))


def typed_path(name: str) -> Path:
    """A path as somebody typed it, with `~` for a home folder.

    Raises:
        FirstTokenError: no file system has such a path, or there is no such home folder.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FirstTokenError(f"The path {shorten(name)} cannot be followed ({why}); give the whole path.") from error
    return path


def shorten(text: str) -> str:
    """What somebody typed, short enough for a sentence."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def refuse_unwritable(path: Path, what: str, remedy: str) -> None:
    """Try to write where `path` is to be. Permissions, full disks and read-only systems differ, and what is computed
    for it may take hours.

    Args:
        what: is to be written, in the plural, at the beginning of the sentence.
        remedy: what to do, at its end.

    Raises:
        FirstTokenError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, f"{path.name} is a folder there")
        with tempfile.TemporaryFile(dir=path.parent) as written:
            written.write(b"{}")
    except OSError as error:
        raise FirstTokenError(
            f"{what} cannot be written to {path.parent} ({error.strerror}), so nothing is measured; {remedy}."
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a killed run, never sees half a file."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _placing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FirstTokenError(
            f"{path.parent} cannot be written ({error.strerror}); give another place, or set FIRSTTOKEN_CACHE or "
            "FIRSTTOKEN_RESULTS to a folder that can be."
        ) from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path`, to be written in the block; then it takes the place of `path` in one step.

    An error in the block leaves `path` as it was and nothing beside it.
    """
    with _placing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, holds: str, prefix: str = "") -> Iterator[Path]:
    """The same for a folder that does not exist yet.

    Args:
        holds: the name of a file in it. Where another process was faster and `path` has this file, that folder stays
            and this one goes.
        prefix: of the name it has until then.
    """
    with _placing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix or f".{path.name}.", suffix=".partial"))
    try:
        yield partial
        partial.chmod(0o755)
        try:
            os.replace(partial, path)
        except OSError:
            if not (path / holds).exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cache_folder() -> Path:
    """Where assembled and dequantised weights are kept; `FIRSTTOKEN_CACHE` moves it."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "firsttoken"
    return Path(os.environ.get("FIRSTTOKEN_CACHE", default))


def local_results(root: Path = ROOT) -> Path:
    """The store of this machine's own records, below `root`; `FIRSTTOKEN_RESULTS` moves it."""
    return Path(os.environ.get("FIRSTTOKEN_RESULTS", root / "results" / "local"))
