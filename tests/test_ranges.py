"""Every number that a chapter or a command takes has a range, and is refused in one sentence before work begins."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy
import pytest

from firsttoken import claims, cli, models
from firsttoken.book import chapters
from firsttoken.book.notebook import Notebook
from firsttoken.claims import verify
from firsttoken.errors import FirstTokenError
from firsttoken.measures.measurement import Measurement
from firsttoken.pretraining.run_spec import from_command_line
from firsttoken.ranges import in_range

HUGE = 10**26
SENSELESS = (-1, HUGE, math.nan, math.inf, -math.inf)
# Where 0 means none, or the first.
MAY_BE_NONE = {
    "seed", "skip_passages", "tested", "layer", "head", "bounded", "settle", "replaced", "without_bos", "retries",
    "gpus", "gpu-memory",
}  # fmt: skip


class Reached(Exception):
    """The parameters were taken."""


class NoModel:
    def __getattr__(self, name: str) -> Any:
        raise Reached(name)


def measurements() -> Iterator[tuple[str, Measurement[Any]]]:
    for claim in claims.names():
        for measurement in claims.measurements(claim):
            yield f"{claim} {measurement.variant}".strip(), measurement


MEASUREMENTS = dict(measurements())


def numbers(kind: type) -> Iterator[tuple[str, Any]]:
    for field in fields(kind):
        if "int" in str(field.type) or "float" in str(field.type):
            assert field.default is not MISSING, f"{kind}.{field.name} has no default to begin from"
            for value in (*SENSELESS, *([] if field.name in MAY_BE_NONE or field.default == 0 else [0])):
                if isinstance(field.default, float) or not isinstance(value, float):
                    yield field.name, value


def refused(said: pytest.ExceptionInfo[FirstTokenError]) -> None:
    assert len(str(said.value).splitlines()) == 1


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_of_every_measurement(name: str) -> None:
    measurement = MEASUREMENTS[name]
    for field, value in numbers(measurement.parameters):
        with pytest.raises(FirstTokenError) as said:
            measurement.record(NoModel(), measurement.parameters(**{field: value}))  # type: ignore[arg-type]
        refused(said)


WRONG: dict[str, tuple[Any, ...]] = {
    "int": ("3", 2.5, True, None, [3], numpy.int64(3)),
    "float": ("0.5", False, None),
    "str": (3, None, b"auto"),
    "int | None": ("3", 2.5, True),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_values_of_another_type_are_refused_by_name(name: str) -> None:
    kind = MEASUREMENTS[name].parameters
    for field in fields(kind):
        for value in WRONG.get(str(field.type), ("sometimes", 3, None)):
            with pytest.raises(FirstTokenError, match=rf"^{field.name} must be .*, not {re.escape(repr(value))}"):
                in_range(kind(**{field.name: value}))


NO_PLAIN_VALUES = {"passages": [4], "length": numpy.int64(16), "model": Path("a"), "bos": numpy.array(["auto"])}


@pytest.mark.parametrize("name", NO_PLAIN_VALUES)
def test_a_value_that_is_no_plain_one_is_refused_and_not_passed_over(name: str) -> None:
    """The default was measured in its place."""
    declared = {name: one.value for name, one in chapters.parameters("sink_rates").items()}
    with pytest.raises(
        FirstTokenError, match=f"^The parameter {name} must be a text, a number, true or false"
    ) as said:
        Notebook("sink_rates", declared | {name: NO_PLAIN_VALUES[name]})
    refused(said)


@pytest.mark.parametrize("name", ["trust_remote_code", "fresh", "quick"])
@pytest.mark.parametrize("value", ["false", "no", 0, 1, None])
def test_a_switch_is_true_or_false(name: str, value: Any) -> None:
    declared = {name: one.value for name, one in chapters.parameters("sink_rates").items()}
    with pytest.raises(FirstTokenError, match=f"^{name} must be true or false, not {value!r}"):
        Notebook("sink_rates", declared | {name: value})


@pytest.mark.parametrize("chapter", chapters.chapters())
def test_of_every_number_of_a_chapter_before_a_model_is_loaded(chapter: str) -> None:
    declared = {name: one.value for name, one in chapters.parameters(chapter).items()}
    Notebook(chapter, declared)
    given = [
        name for name, value in declared.items() if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert given, "a chapter has something to count"
    for name in given:
        for value in (-1, math.nan, HUGE):
            with pytest.raises(FirstTokenError, match=f"^{name} must be") as said:
                Notebook(chapter, declared | {name: value})
            refused(said)


@pytest.mark.parametrize("claim", [claim for claim in claims.names() if claims.trained(claim)])
def test_of_every_measurement_of_trained_models(claim: str) -> None:
    for kind in {measurement.parameters for measurement in claims.trained(claim)}:
        for field, value in numbers(kind):
            with pytest.raises(FirstTokenError) as said:
                in_range(kind(**{field: value}))
            refused(said)


def test_what_is_no_plain_value_is_refused_where_models_are_trained_too() -> None:
    declared = {name: one.value for name, one in chapters.parameters("packing").items()}
    with pytest.raises(FirstTokenError, match=r"^The parameter seeds must be a text, a number"):
        Notebook("packing", declared | {"seeds": [3]})


def test_the_parameters_of_committed_records_are_in_range() -> None:
    records = [record for record in verify.committed() if record.claim in claims.names()]
    assert len(records) >= 35
    for record in records:
        for measurement in claims.measurements(record.claim):
            if measurement.variant == record.variant:
                in_range(measurement.asked(record))


@pytest.mark.parametrize("field", ["seed", "learning_rate", "weight_decay", "tokens", "least", "length", "replaced"])
@pytest.mark.parametrize("value", ["-1", "1e26", "nan", "inf", str(HUGE)])
def test_of_a_training(field: str, value: str) -> None:
    with pytest.raises(FirstTokenError) as said:
        from_command_line("smoke", {field: value})
    refused(said)


def options() -> Iterator[tuple[str, str, type]]:
    """(command, option, type) of every option that is a number."""
    for action in cli.parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, parser in action.choices.items():
                for option in parser._actions:
                    if option.type in (int, float):
                        yield command, option.option_strings[-1], option.type


OPTIONS = list(options())
OTHERS = {"cluster": ["smollm2-135m"], "plan": ["smollm2-135m"], "lab": ["cpu", "--minutes", "1"]}


@pytest.mark.parametrize(("command", "option", "kind"), OPTIONS)
def test_of_every_option(
    command: str, option: str, kind: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise Reached(option)

    monkeypatch.setattr(models, "load_all", reached)
    monkeypatch.setattr("firsttoken.book.cluster.launch", reached)
    monkeypatch.setattr("firsttoken.pretraining.queue.find", reached)
    values = [*(SENSELESS if kind is float else (-1, HUGE)), *([] if option.strip("-") in MAY_BE_NONE else [0])]
    for value in values:
        assert cli.main([command, *OTHERS[command], f"{option}={value}"]) == 2, (option, value)
        assert capsys.readouterr().err.count("\n") == 1


def test_all_options_are_known() -> None:
    assert {command for command, *_ in OPTIONS} == set(OTHERS)
    assert len(OPTIONS) >= 15
