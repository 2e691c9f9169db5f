"""Numbers as prose quotes them: by the key of a record, never typed.

A key is `claim.model.name:format`, for example `sink_rates.smollm2-135m.sink_rate:.1%`; `model--variant`
names a variant, further dots go deeper into a value, and `paper.` begins a key into the paper's own numbers.
The book's `{result}` role and the verdict board both read keys here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import end, number, telling
from firsttoken.records import paper_numbers, store

NOT_RUN = "not run"


@dataclass(frozen=True)
class Quoted:
    """A number ready to show, its interval as `bracket`, that with n as `detail`; not `measured` where there is no
    record."""

    text: str
    detail: str = ""
    bracket: str = ""
    measured: bool = True


def quote(key: str) -> Quoted:
    """Look a key up in the records.

    Returns `Quoted("not run", measured=False)` where no such record exists, or where it holds null: a part of it that
    was not run.

    Raises:
        FirstTokenError: the record exists but has no such value, or the format does not fit the value.
    """
    path, _, form = key.partition(":")
    claim, *rest = path.split(".")
    if claim == "paper":
        return _shown(key, *_look_up(key, paper_numbers.paper(), rest), form)
    if len(rest) < 2:
        raise FirstTokenError(f"The key {key} is not of the form claim.model.name:format.")
    model, _, variant = rest[0].partition("--")
    record = store.find(claim, model, variant)
    if record is None:
        return Quoted(NOT_RUN, measured=False)
    return _shown(key, *_look_up(key, record.values, rest[1:]), form)


def estimate(value: Any, form: str) -> Quoted:
    """A stored number, or an estimate with its interval and n as detail, in a given format."""
    return _shown("", value, {}, form)


def fill(template: str) -> str:
    """Put the paper's numbers in place of `{key:format}`, with "about" where read off a figure, and "disputed"
    where that is so."""
    return re.sub(r"\{([^{}]+)\}", lambda match: quote(f"paper.{match[1]}").text, template)


def _look_up(key: str, value: Any, path: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """The value, and the entry around it that says how it was obtained; empty for a record's."""
    marked: Mapping[str, Any] = {}
    path = list(path)
    while path and value is not None:
        # Some names hold a dot, such as `sink_rate_0.3`.
        name = next(
            (x for n in (2, 1) if (x := ".".join(path[:n])) and isinstance(value, Mapping) and x in value), None
        )
        if name is not None:
            marked = value if "mark" in value else marked
            value, path = value[name], path[name.count(".") + 1 :]
        elif isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value):
            value, path = value[int(path[0])], path[1:]
        else:
            known = f"; there is {', '.join(value)}" if isinstance(value, Mapping) else ""
            raise FirstTokenError(f"The key {key} leads nowhere at '{path[0]}'{known}.")
    return value, marked


def _shown(key: str, value: Any, marked: Mapping[str, Any], form: str) -> Quoted:
    if value is None:
        return Quoted(NOT_RUN, measured=False)
    try:
        if isinstance(value, Mapping):
            form = telling(value, form)
            low, high = end(value["low"], form), end(value["high"], form)
            detail = f"95 % interval {low} to {high}, n = {value['n']}"
            return Quoted(number(value["value"], form), detail, f"[{low}, {high}]")
        text = format(value, form)
    except (KeyError, TypeError, ValueError) as error:
        raise FirstTokenError(f"The value of {key} cannot be shown as '{form}' ({error}).") from error
    mark = marked.get("mark", "certain")
    # Names and settings beside such a number are exact.
    if mark == "certain" or not isinstance(value, float):
        return Quoted(text)
    detail = f"{mark}: {marked['where']}; {marked['why']}"
    return Quoted(f"about {text}" + (" (disputed)" if mark == "disputed" else ""), detail)
