"""From typed words to values, by type hints and by their source; former names."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from firsttoken.errors import FirstTokenError
from firsttoken.parameters import FORMER, from_text, names_in, renamed


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "12", 12),
        ("int", "12", 12),
        (float, "1e-3", 0.001),
        (str, "12", "12"),
        (bool, "Yes", True),
        ("bool", "off", False),
        (int | None, "none", None),
        ("int | None", "3", 3),
        (Literal["auto", "never"], "never", "never"),
        (tuple[int, ...], "[1, 2]", [1, 2]),
    ],
)
def test_a_word_means_a_value_of_its_type(hint: Any, text: str, value: object) -> None:
    assert from_text("n", hint, text) == value
    assert type(from_text("n", hint, text)) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "sentence"),
    [
        (int, "twelve", "The parameter n is of type int; 'twelve' is not"),
        ("float", "", "The parameter n is of type float; '' is not"),
        (bool, "perhaps", "of type bool; 'perhaps' is not"),
        (Literal["auto", "never"], "always", "is one of auto, never; 'always' is not"),
        (dict[str, int], "{", "of type dict"),
    ],
)
def test_another_word_is_refused_in_a_sentence(hint: Any, text: str, sentence: str) -> None:
    with pytest.raises(FirstTokenError, match=sentence):
        from_text("n", hint, text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a/one, ./b two ,c", ["a/one", "./b two", "c"]),
        ("a,", ["a"]),
        (" , ,a", ["a"]),
        (" , ", []),
        ("", []),
    ],
)
def test_what_a_parameter_lists(text: str, names: list[str]) -> None:
    assert names_in(text) == names


def test_former_names_are_taken_where_only_the_present_one_is_declared(capsys: pytest.CaptureFixture) -> None:
    asked = {"length": 32, "texts": "a.txt", "seed": 1}
    assert renamed(asked, {"text_tokens", "text_source", "seed"}) == {
        "text_tokens": 32,
        "text_source": "a.txt",
        "seed": 1,
    }
    assert capsys.readouterr().out.count("is called") == 2
    assert renamed({"length": 32}, {"length", "text_source"}) == {"length": 32}
    assert renamed({"other": 1}, {"text_tokens"}) == {"other": 1}
    assert not set(FORMER) & set(FORMER.values())
