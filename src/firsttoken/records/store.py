"""The results store: every number in the book is read from a record, and every record says where it came from.

A record is one small JSON file, `<store>/<claim>/<model>[--variant].json`. There are two stores:

* `results/`        committed reference records, which the published book shows;
* `results/local/`  what this machine measured (not committed), which wins over the reference when both exist.

Set `FIRSTTOKEN_RESULTS` to put the local store somewhere else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.files import ROOT, local_results, refuse_unwritable, slug, write_atomically
from firsttoken.records.provenance import environment, git_state
from firsttoken.records.schema import FORMER_CLAIMS, SCHEMA, to_present

Status = Literal["reproduced", "partly", "not reproduced", "inconclusive"]


# What changes no number beyond rounding; two records that differ only here answer one question.
UNRECORDED = frozenset({"batch_tokens", "execution"})


def recorded(parameters: Any) -> JSON:
    """The fields of a chapter's frozen dataclass of parameters that belong into its record."""
    return {name: value for name, value in asdict(parameters).items() if name not in UNRECORDED}


UNSTAMPED = "3"  # the rules for GGUF files when records did not name them yet; later ones must not change this
QUICK = "quick"  # in the provenance of a record with fewer and shorter texts, which gets no verdict


@dataclass(frozen=True)
class Verdict:
    """What one record says about one claim of the paper, in one sentence."""

    status: Status
    sentence: str


@dataclass(frozen=True)
class Record:
    """One measurement of one claim on one model.

    `parameters` and `version` (of the measurement's code) and `provenance["texts_hash"]` decide whether a record may
    be used again; `values` holds numbers, lists of numbers and estimates as `{"value", "low", "high", "n"}`.
    """

    claim: str
    model: str  # a slug: lower case, digits and hyphens
    parameters: JSON
    values: JSON
    provenance: JSON
    version: int = 1
    variant: str = ""
    verdict: Verdict | None = None
    schema: int = field(default=SCHEMA)

    @property
    def filename(self) -> str:
        return filename(self.model, self.variant)

    def layer_numbers(self, rows: int) -> list[int]:
        """The numbers of the layers that the `rows` of a value belong to: a hybrid's layers that have attention."""
        known = (self.provenance.get("check") or {}).get("layers")
        return list(known) if known and len(known) == rows else list(range(rows))


def filename(model: str, variant: str = "") -> str:
    """The file of a record in its claim's folder; `model` is a slug."""
    return f"{model}--{variant}.json" if variant else f"{model}.json"


def reference_store() -> Path:
    return ROOT / "results"


def local_store() -> Path:
    return local_results(ROOT)


def quick_store() -> Path:
    """Where the records of first looks lie, apart from those that are whole."""
    return local_store() / QUICK


# -- reading and writing ------------------------------------------------------------------------------------


def write(record: Record, store: Path | None = None) -> Path:
    """Write `record` into `store` (the local one by default) and return its path.

    A value that is not a finite number is refused: it would be shown in the book as a result.
    """
    path = (store or local_store()) / record.claim / record.filename
    try:
        text = as_json(record)
    except ValueError as error:
        where = [".".join(map(str, place)) for place in _not_finite(record.values)]
        dtype = (record.provenance.get("model") or {}).get("dtype")
        remedy = (
            "Such a number is the ratio of two that are 0: the model does not react to what is compared here, and "
            "more or longer texts may help."
            if dtype == "float32"
            else "Run it again in float32."
        )
        raise FirstTokenError(
            f"The measurement {record.claim} of {record.model} gave values that are not finite numbers "
            f"({len(where)}: {', '.join(where[:3])}); it was not stored. {remedy}"
        ) from error
    write_atomically(path, text)
    return path


def _not_finite(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for name, part in parts:
        yield from _not_finite(part, (*place, name))


def as_json(record: Record) -> str:
    """The text of a record's file. Raises `ValueError` for a value that is not a finite number."""
    return json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n"


def read(path: Path) -> Record:
    """Read and validate one record.

    Raises `FirstTokenError` where the file is not JSON, lacks a field, or has another schema version.
    """
    remedy = "delete it and run the chapter again"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FirstTokenError(f"The record {path} cannot be read ({error}); {remedy}.") from error
    stored = to_present(stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        schema = stored.get("schema") if isinstance(stored, dict) else None
        raise FirstTokenError(f"The record {path} has schema {schema}, this version reads schema {SCHEMA}; {remedy}.")
    kinds = {
        "claim": str,
        "model": str,
        "parameters": dict,
        "values": dict,
        "provenance": dict,
        "version": int,
    }
    bad = [name for name, kind in kinds.items() if not isinstance(stored.get(name), kind)]
    unknown = sorted(set(stored) - set(Record.__dataclass_fields__))
    if bad or unknown:
        raise FirstTokenError(f"The record {path} has missing or unknown fields {bad + unknown}; {remedy}.")
    if (told := stored.get("verdict")) is not None:
        if not isinstance(told, dict) or set(told) != {"status", "sentence"} or told["status"] not in get_args(Status):
            raise FirstTokenError(f"The record {path} has a verdict that is none ({told!r}); {remedy}.")
        stored["verdict"] = Verdict(**told)
    if not isinstance(stored["provenance"].get("model", {}), dict):
        raise FirstTokenError(f"The record {path} does not say which model it is about; {remedy}.")
    if not isinstance(stored.get("variant", ""), str):
        raise FirstTokenError(f"The record {path} has a variant that is no name; {remedy}.")
    return Record(**stored)


def find(claim: str, model: str, variant: str = "") -> Record | None:
    """The record to show for a claim and model: this machine's own if it has one, else the committed one."""
    name = filename(slug(model), variant)
    for store in (local_store(), reference_store()):
        for folder in reversed(_folders(claim)):
            if (path := store / folder / name).exists():
                return read(path)
    return None


def _folders(claim: str) -> list[str]:
    """Where records of a claim may lie: in the folder of its former name too, which its present one hides."""
    return [*(former for former, present in FORMER_CLAIMS.items() if present == claim), claim]


def all_records(claim: str = "*") -> list[Record]:
    """Every record of a claim (or of all), local ones hiding the committed ones of the same name."""
    paths: dict[tuple[str, str], Path] = {}
    for store in (reference_store(), local_store()):
        files = {path for folder in _folders(claim) for path in store.glob(f"{folder}/*.json")}
        for path in sorted(files, key=lambda path: (path.parent.name not in FORMER_CLAIMS, path)):
            if path.parent != local_store():
                paths[FORMER_CLAIMS.get(path.parent.name, path.parent.name), path.name] = path
    return [read(path) for _, path in sorted(paths.items())]


def hash_of_texts(passages: Sequence[str]) -> str:
    """A short hash of texts in order; two records with the same hash were measured on the same texts."""
    digest = hashlib.sha256()
    for text in passages:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    return digest.hexdigest()[:16]


# -- reuse ------------------------------------------------------------------------------------------------


def _normal(value: Any) -> Any:
    return json.loads(json.dumps(value))


def reusable(
    claim: str,
    model: Any,
    parameters: Mapping[str, Any],
    texts_hash: str,
    version: int = 1,
    variant: str = "",
    reference: bool | None = None,
    store: Path | None = None,
) -> Record | None:
    """The record that already answers this question, if any; the arguments are those of `reuse_or_measure`."""
    if reference is None:
        reference = not os.environ.get("FIRSTTOKEN_MEASURE_HERE")
    asked = (_normal(parameters), texts_hash, version, _identity(_normal(model.provenance())))
    own = store or local_store()
    for place in (own, reference_store()) if reference else (own,):
        names = (place / folder / filename(model.slug, variant) for folder in reversed(_folders(claim)))
        if (path := next((name for name in names if name.exists()), None)) is None:
            continue
        try:
            old = read(path)
        except FirstTokenError as error:
            print(f"{error} It is measured again now.")
            continue
        answers = (
            old.parameters,
            old.provenance.get("texts_hash"),
            old.version,
            _identity(old.provenance.get("model", {})),
        )
        if asked == answers:
            return old
    return None


def reuse_or_measure(
    claim: str,
    *,
    model: Any,
    parameters: Mapping[str, Any],
    texts_hash: str,
    measure: Callable[[], JSON],
    judge: Callable[[Record], Verdict | None] | None = None,
    version: int = 1,
    variant: str = "",
    fresh: bool = False,
    reference: bool | None = None,
    store: Path | None = None,
    about: Callable[[], JSON] | None = None,
) -> Record:
    """The record of a measurement: an existing one if it answers the same question, else a new one.

    Args:
        model: what was measured; needs `.slug` and `.provenance()` (see `firsttoken.models.LanguageModel`).
        parameters: everything that the caller chose. A record is reused only if these, `texts_hash` (of the
            passages), the model's fingerprint, dtype and `version` are the same.
        measure: computes the values; called only when nothing can be reused.
        judge: turns the record into a verdict, which is stored with it for whoever opens the file; the book judges
            anew whenever it shows a record.
        fresh: measure again in any case.
        reference: whether a committed record may be reused too. By default yes, unless the environment variable
            `FIRSTTOKEN_MEASURE_HERE` is set, as `make book` does: it shows this machine's own numbers.
        store: where to look first and to write; the local store if none is given.
        about: more for the record's provenance, asked for before something is measured and only then.

    Raises:
        FirstTokenError: the record could not be written; this is found out before anything is measured.
    """
    if (
        not fresh
        and (old := reusable(claim, model, parameters, texts_hash, version, variant, reference, store)) is not None
    ):
        return with_verdict(old, judge, store)

    place = (store or local_store()) / claim / filename(model.slug, variant)
    refuse_unwritable(place, "Records", "put it right, or give another folder in FIRSTTOKEN_RESULTS")
    # The code that measures was loaded before; what is committed while it runs is not what ran.
    state = git_state(ROOT)
    more = about() if about else {}
    start = time.perf_counter()
    values = _normal(measure())
    provenance = {
        "model": model.provenance(),
        "texts_hash": texts_hash,
        **environment(),
        **state,
        **more,
        "seconds": round(time.perf_counter() - start, 1),
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    record = Record(claim, model.slug, dict(_normal(parameters)), values, provenance, version, variant)
    record = replace(record, verdict=judge(record) if judge else None)
    write(record, store)
    return record


def with_verdict(old: Record, judge: Callable[[Record], Verdict | None] | None, store: Path | None) -> Record:
    """A record as its own claim keeps it: one that was first measured for another claim has no verdict yet."""
    if old.verdict is not None or judge is None:
        return old
    judged = replace(old, verdict=judge(old))
    path = (store or local_store()) / old.claim / old.filename
    # A committed record stays as it is.
    if judged != old and path.exists() and read(path) == old:
        write(judged, store)
    return judged


def _identity(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two models the same for a record. The fingerprint covers weights, tokenizer and code; where they were
    kept, on which device they ran and what the check of the weights noted does not count. Of GGUF files the rules by
    which they are read count."""
    named = tuple(provenance.get(name) for name in ("fingerprint", "dtype", "quantisation", "code"))
    return (*named, provenance.get("conversion", UNSTAMPED))


def differences(
    ours: Any, theirs: Any, tolerance: float, path: str = "", ignore: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Where two values of a record differ by more than `tolerance` (absolute plus relative), as readable lines.

    Args:
        ignore: keys that are not compared, at any depth.
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted((set(ours) | set(theirs)) - ignore):
            if key not in ours or key not in theirs:
                yield f"{path}.{key}: only in one of the two"
            else:
                yield from differences(ours[key], theirs[key], tolerance, f"{path}.{key}", ignore)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} and {len(theirs)} entries"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(a, b, tolerance, f"{path}[{i}]", ignore)
    elif isinstance(ours, float | int) and isinstance(theirs, float | int):
        if abs(ours - theirs) > tolerance * (1 + abs(theirs)):
            yield f"{path}: {ours:.6g} and {theirs:.6g}"
    elif ours != theirs:
        yield f"{path}: {ours!r} and {theirs!r}"
