"""Shown names of models, against the metadata of the files and the registry of bundled models."""

from __future__ import annotations

import re

import pytest
from gguf import GGUFReader

from firsttoken.files import slug
from firsttoken.model_names import NAMES, model_name, short_name
from firsttoken.models.bundled import BUNDLED, gguf_file
from firsttoken.models.family import FAMILY


def squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_every_model_at_hand_has_a_name_and_terms() -> None:
    at_hand = {**BUNDLED, **FAMILY}
    assert set(NAMES) == set(at_hand)
    for name, model in at_hand.items():
        shown = model_name(slug(name))
        assert shown == NAMES[name]
        assert shown.short == short_name(slug(name))
        assert shown.licence
        assert shown.terms.startswith("https://")
        assert re.search(r"Q\d_\w+", model.quantisation)[0] in shown.full  # type: ignore[index]


@pytest.mark.parametrize("name", BUNDLED)
def test_names_and_variants_are_those_of_the_files(name: str) -> None:
    path = gguf_file(name)
    fields = GGUFReader(path).fields
    text = {key: str(fields[key].contents()) for key in ("general.basename", "general.size_label", "general.license")}
    shown = NAMES[name]
    assert squeezed(text["general.basename"]) in squeezed(shown.name)
    assert squeezed(text["general.size_label"]) in squeezed(shown.name)
    assert squeezed(text["general.license"]) in squeezed(shown.licence)
    tuned = "tokenizer.chat_template" in fields
    assert tuned == ("Instruct" in shown.name) == ("instruct" in path.name.lower())
    assert tuned != ("pretrained" in shown.copy)


def test_a_model_that_is_not_listed_keeps_its_own_name() -> None:
    assert model_name("org-a-model", "org/A-Model").full == "org/A-Model"
    assert model_name("org-a-model").name == "org-a-model"
