"""Names of records: today's stay, and two models never share one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firsttoken import models
from firsttoken.files import own_slug, slug
from firsttoken.models.bundled import BUNDLED
from firsttoken.models.family import FAMILY
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
