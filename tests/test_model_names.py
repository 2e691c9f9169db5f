"""Shown names of models, against the metadata of the files and the registry of bundled models."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from gguf import GGUFReader

from firsttoken import records
from firsttoken.claims.jacobian import figures as jacobian
from firsttoken.claims.perturbation import figures as perturbation
from firsttoken.claims.smoothing import figures as smoothing
from firsttoken.claims.theory import figures as theory
from firsttoken.files import slug
from firsttoken.measures.bos_arms import ADDED
from firsttoken.model_names import NAMES, model_name, short_name
from firsttoken.models.bundled import BUNDLED, gguf_file
from firsttoken.models.family import FAMILY
from firsttoken.plots import Display
from firsttoken.records import Record


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


@pytest.mark.parametrize(
    "show",
    [
        jacobian.by_layer, jacobian.errors, jacobian.ratio, perturbation.groups, perturbation.ratio,
        perturbation.spread_by_layer, smoothing.by_layer, smoothing.ratios, smoothing.spectrum, theory.bounds,
        theory.correlations, theory.walk,
    ],
)  # fmt: skip
def test_a_bos_that_the_tokenizer_does_not_put_first_is_called_added(
    show: Callable[[Sequence[Record]], Display],
) -> None:
    claim = show.__module__.split(".")[-2]
    added, native = (records.find(claim, model) for model in ("smollm2-135m", "gemma3-270m"))
    assert added
    assert native
    assert ADDED in show([added]).html
    assert ADDED not in show([native]).html
