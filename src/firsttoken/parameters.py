"""Parameters as text: what a notebook declares, and the value that a typed word means for it."""

from __future__ import annotations

import ast
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml

from firsttoken.errors import FirstTokenError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a chapter, as declared in the notebook's `parameters` cell."""

    name: str
    type: str  # the annotation, or the type of the default where there is none
    default: str  # as Python source
    help: str

    @property
    def value(self) -> Any:
        """The default; where it is no plain value, its source."""
        try:
            return ast.literal_eval(self.default)
        except ValueError:
            return self.default

    def parse(self, text: str) -> Any:
        """The value that `text`, typed on a command line, means for the declared type."""
        return from_text(self.name, self.type, text)


def from_text(name: str, hint: Any, text: str) -> Any:
    """The value that a typed word means for a parameter.

    Args:
        name: of the parameter, for the error.
        hint: its type hint, or the source of one as a notebook spells it: `str`, `int`, `float`, `bool`, one of these
            `| None`, a `Literal`; anything else is read as YAML.

    Raises:
        FirstTokenError: the word is no such value.
    """
    if get_origin(hint) is Literal:
        if text not in (choices := [str(choice) for choice in get_args(hint)]):
            raise FirstTokenError(f"The parameter {name} is one of {', '.join(choices)}; '{text}' is not.")
        return text
    spelled = hint.__name__ if isinstance(hint, type) else str(hint)
    kind, _, optional = (part.strip() for part in spelled.partition("|"))
    if optional == "None" and text.lower() in ("none", "null", ""):
        return None
    try:
        if kind == "str":
            return text
        if kind == "bool":
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
        if kind in ("int", "float"):
            return int(text) if kind == "int" else float(text)
        return yaml.safe_load(text)
    except (KeyError, ValueError, yaml.YAMLError) as error:
        raise FirstTokenError(f"The parameter {name} is of type {spelled}; '{text}' is not.") from error


def names_in(text: str) -> list[str]:
    """What a parameter names that may name several, such as `model`: separated by commas, without the spaces around
    them; where nothing stands between two commas, nothing is named."""
    return [name for part in text.split(",") if (name := part.strip())]


# Former names of parameters, still taken wherever a chapter declares the present one and not the former.
FORMER = {
    "length": "text_tokens",
    "texts": "text_source",
    "longest": "longest_text_tokens",
    "bound_length": "bound_text_tokens",
}


def renamed(asked: Mapping[str, Any], declared: Container[str]) -> dict[str, Any]:
    """The values by their parameters' present names; a line is printed for each former name that was used.

    Args:
        declared: the names that the chapter declares. `length` counts the BOS token and `text_tokens` does not, so
            no chapter declares both; nor both `longest` and `longest_text_tokens`.
    """
    values = dict(asked)
    for former, present in FORMER.items():
        if former in values and present in declared and former not in declared:
            print(f"The parameter {former} is called {present} now; its value is taken.")
            values[present] = values.pop(former)
    return values
