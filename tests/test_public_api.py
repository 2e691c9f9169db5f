"""The page of public names lists what the packages export, and all of it is there."""

from __future__ import annotations

import importlib
import re

import pytest

from firsttoken.files import ROOT

PACKAGES = ("models", "texts", "probe", "records")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_lists_what_is_exported(package: str) -> None:
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    listed = re.search(rf"^`firsttoken\.{package}`\n: (.*?)(?=\n\n)", page, re.M | re.S)
    assert listed is not None
    names = re.findall(r"`([A-Za-z_]+)`", listed[1].split(": ")[0] if ": " in listed[1] else listed[1])
    module = importlib.import_module(f"firsttoken.{package}")
    assert sorted(names) == sorted(module.__all__)
    for name in names:
        assert getattr(module, name) is not None


def test_nothing_else_is_an_attribute_of_models() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        importlib.import_module("firsttoken.models").lod  # noqa: B018
