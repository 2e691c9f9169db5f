"""Whatever is typed, and whatever stands in a record or a text file, the answer is a result or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsttoken import claims, cli, records, texts
from firsttoken.book import chapters, page
from firsttoken.errors import FirstTokenError
from firsttoken.parameters import from_text
from firsttoken.records import Record, Verdict, store
from firsttoken.records.numbers import quote

quick = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(), st.text(max_size=6),
    st.sampled_from(["not measured", "partly", "smollm2-135m", 1, 2, 3]),
)  # fmt: skip
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
words = st.text(st.characters(exclude_characters="\n"), max_size=12) | st.sampled_from(
    ["0", "-1", "1e309", "nan", "inf", "true", "None", "[1,", "{a: ]", "&a *a", "!!python/name:os.system", "\x00", "é"]
)


def answer(ask: Callable[[], Any]) -> Any:
    """What was asked for, or None where it was refused in one line. Any other exception is a failure."""
    try:
        return ask()
    except FirstTokenError as error:
        said = str(error)
    assert said.strip()
    assert len(said.splitlines()) == 1
    return None


# -- what is typed ------------------------------------------------------------------------------------------


@quick
@given(
    hint=st.sampled_from(["str", "int", "float", "bool", "int | None", "list[int]", int, float, Literal["a", "b"]]),
    text=words,
)
def test_values_of_parameters(hint: Any, text: str) -> None:
    value = answer(lambda: from_text("name", hint, text))
    if value is not None and hint in (int, "int"):
        assert type(value) is int


@pytest.fixture(scope="module")
def chapter_names() -> list[str]:
    return chapters.chapters()


@quick
@given(draws=st.data())
def test_parameters_of_chapters(chapter_names: list[str], draws: st.DataObject) -> None:
    name = draws.draw(st.sampled_from(chapter_names))
    keys = st.sampled_from([*chapters.parameters(name), "texts", "length", "passage"]) | words
    asked = draws.draw(st.dictionaries(keys, words, max_size=3))
    chosen = answer(lambda: chapters.choose(asked, [name]))
    if chosen is None:
        return
    values = chosen[name]
    # A page repeats what was asked for in its commands.
    assert page.rerun_command(name, values).startswith("firsttoken run")
    assert page.papermill_command(name, values).startswith("papermill")
    declared = {key: parameter.value for key, parameter in chapters.parameters(name).items()}
    if name in claims.names():
        for measurement in claims.measurements(name):
            known = measurement.parameters.__dataclass_fields__
            mine = {key: value for key, value in {**declared, **values}.items() if key in known}
            if measurement.on_demand and not mine.get(measurement.on_demand, {**declared, **values}.get("stream")):
                continue
            answer(lambda m=measurement, mine=mine: m.parameters(**mine))


@quick
@given(
    arguments=st.lists(words, max_size=4), command=st.sampled_from(["run", "report", "chapters", "verify", "lab", ""])
)
def test_command_lines(
    arguments: list[str], command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Nothing is run: names and numbers are refused before, or what would run is asked for."""
    monkeypatch.setattr(chapters, "run_chapters", lambda *_: [])
    monkeypatch.setattr(chapters, "report", lambda *_, **__: Path("there"))
    monkeypatch.setattr("firsttoken.claims.verify.verify", lambda names, **_: [])
    monkeypatch.setattr("firsttoken.pretraining.queue.run", lambda *_: [])
    try:
        code = cli.main([*([command] if command else []), *arguments])
    except SystemExit as end:  # argparse's own answer
        code = end.code if isinstance(end.code, int) else 2
    said = capsys.readouterr().err
    assert code in (0, 2)
    assert "Traceback" not in said
    assert code == 0 or said.strip()


# -- what lies in files -------------------------------------------------------------------------------------

GOOD = Record(
    "claim", "tiny", {"length": 64}, {"rate": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}},
    {"model": {"name": "tiny"}, "time": "2026-01-01T00:00:00Z"}, verdict=Verdict("partly", "Half."),
)  # fmt: skip


@quick
@given(draws=st.data())
def test_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: st.DataObject) -> None:
    """One field is anything at all, and schemas are mixed up."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    path = records.write(GOOD)
    content = json.loads(path.read_text())
    field = draws.draw(st.sampled_from([*content, "more"]))
    content[field] = draws.draw(anything)
    content["schema"] = draws.draw(st.sampled_from([content["schema"], 1, 2, 3]))
    path.write_text(json.dumps(content))
    record = answer(lambda: records.read(path))
    if record is None:
        return
    assert record.verdict is None or isinstance(record.verdict, Verdict)
    answer(lambda: claims.verdict(record))
    answer(lambda: page.verdict(record))
    answer(lambda: page.provenance("sink_rates", {}, [record]))
    answer(lambda: quote("claim.tiny.rate:.1%"))
    answer(lambda: store.all_records("claim"))


@quick
@given(raw=st.binary(max_size=200))
def test_record_files_of_any_bytes(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    answer(lambda: records.read(tmp_path / "a.json"))


@quick
@given(raw=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-16")))
def test_texts_of_any_bytes(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    for text in answer(lambda: texts.texts_from(str(tmp_path / "a.txt"))) or []:
        assert text.strip()
        assert not text.startswith("\ufeff")


@quick
@given(key=words, form=words)
def test_keys_of_numbers(key: str, form: str) -> None:
    answer(lambda: quote(key))
    answer(lambda: quote(f"paper.llama.epsilon:{form}"))
    answer(lambda: quote(f"sink_rates.smollm2-135m.{key}:{form}"))
