"""What every chapter shows besides its figures: the verdict, and where its numbers come from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from firsttoken import claims
from firsttoken.claims.base import SIGNS
from firsttoken.measures.bos_arms import BOS_IS_NATIVE
from firsttoken.model_names import model_name, own_name
from firsttoken.plots import Display, table
from firsttoken.records import Record, Status
from firsttoken.records.numbers import NOT_RUN
from firsttoken.records.record import QUICK

_BOXES: Mapping[Status, str] = {
    "reproduced": "tip",
    "partly": "warning",
    "not reproduced": "danger",
    "inconclusive": "note",
}


def verdict(record: Record | None) -> Display:
    """A box with the status of a claim and the sentence behind it; without a record, "not run"."""
    judged = None if record is None else claims.verdict(record)
    status: Status = "inconclusive"
    if record is not None and record.provenance.get(QUICK):
        title = f"none, a first look ({_name(record)})"
        sentence = "Fewer and shorter texts than the claim asks for; run the chapter without `quick` for a verdict."
    elif record is None or judged is None:
        title, sentence = (
            NOT_RUN,
            "No record answers this claim for this model and these parameters.",
        )
    else:
        status = judged.status
        title, sentence = f"{judged.status} ({_name(record)})", judged.sentence
    sign = SIGNS[status]
    html = (
        f'<div class="admonition {_BOXES[status]} verdict-box themed"><p class="admonition-title">'
        f'<span aria-hidden="true">{sign}</span> Verdict: {escape(title)}</p><p>{escape(sentence)}</p></div>'
    )
    return Display(html, f"{sign} Verdict: {title}. {sentence}")


def _name(record: Record) -> str:
    origin = record.provenance.get("model") or {}
    # Models that were trained here are many to a record, whose slug says by which budget.
    own = "" if origin.get("source") == "pretrained" else own_name(record)
    return model_name(record.model, own).name


def verdicts(chapter: str, records: Iterable[Record]) -> Display:
    """The verdict on each record by today's rule, and the rule itself; "not run" where there is none. Then what else
    could explain the numbers, and what would change our mind while the claim is open.

    Args:
        chapter: the name of the claim.
    """
    card = claims.claim(chapter)
    measured = list(records)
    boxes = [verdict(record) for record in measured] or [verdict(None)]
    judged = [claims.verdict(record) for record in measured]
    is_open = not judged or any(one is None or one.status != "reproduced" for one in judged)
    numbers = "The numbers" if card.unit.endswith("no interval") else "Intervals"
    notes = {
        "The rule": f"{card.rule_in_full} Fixed: {card.fixed}. {numbers} are over {card.unit}.",
        "Another explanation": card.alternative,
        "What would change our mind": card.would_change if is_open else "",
    }
    told = {name: text for name, text in notes.items() if text}
    html = "".join(box.html for box in boxes) + "".join(
        f'<p class="rule themed"><strong>{name}.</strong> {escape(text)}</p>' for name, text in told.items()
    )
    return Display(html, "\n\n".join((*(box.text for box in boxes), *(f"{n}: {text}" for n, text in told.items()))))


def provenance(chapter: str, parameters: Mapping[str, Any], records: Iterable[Record]) -> Display:
    """The foot of a chapter: its parameters, the origin of each record, the command that repeats it.

    Args:
        chapter: the notebook's name without `.ipynb`.
        parameters: every parameter of the chapter with its value in this run.
        records: all records whose numbers the chapter shows.
    """
    ran = table(
        [(name, _text(value)) for name, value in parameters.items()], ("parameter", "value"), "This run", folds=False
    )
    names, origins = [], []
    for record in records:
        names.append(f"{record.claim}/{record.filename}")
        origins.append(table(_origin(record), ("origin", "value"), f"Record {names[-1]}", folds=False))
    commands = (rerun_command(chapter, parameters), papermill_command(chapter, parameters))
    html = "".join(
        (
            '<section class="provenance themed" aria-label="Where these numbers come from">',
            f"<details><summary>Parameters of this run</summary>{ran.html}</details>",
            "<p>Run it again with the same parameters (a record that answers the same question is reused; "
            "<code>-p fresh true</code> measures anew):</p>",
            "".join(f'<pre class="command" tabindex="0"><code>{escape(line)}</code></pre>' for line in commands),
            "<p>The records behind this page:</p>",
            "".join(
                f"<details><summary>{escape(name)}</summary>{_downloads(name)}{origin.html}</details>"
                for name, origin in zip(names, origins, strict=True)
            ),
            "</section>",
        )
    )
    return Display(html, "\n\n".join((ran.text, *(origin.text for origin in origins), *commands)))


def _downloads(name: str) -> str:
    """Links to the files that the build writes for a record; the page is two folders below the front of the book."""
    base = f"../../_static/results/{name.removesuffix('.json')}"
    return (
        f'<p class="downloads">Download: <a href="{escape(base)}.json" download>the record (JSON)</a>, '
        f'<a href="{escape(base)}.csv" download>its estimates (CSV)</a></p>'
    )


def _origin(record: Record) -> list[tuple[str, str]]:
    origin = record.provenance
    model = origin.get("model", {})
    commit = origin.get("commit")
    packages = ", ".join(f"{name} {version}" for name, version in origin.get("packages", {}).items())
    state = "unknown" if commit is None else commit[:12] + (" with uncommitted changes" if origin.get("dirty") else "")
    facts: dict[str, Any] = {
        "model": own_name(record),
        "fingerprint": model.get("fingerprint"),
        "quantisation": model.get("quantisation") or "none",
        "code of the model": _code(model),
        "precision": model.get("dtype"),
        "device": model.get("device"),
        "machine": origin.get("machine"),
        "packages": packages,
        "python": origin.get("python"),
        "checked": _check(origin.get("check"), model.get("weights")),
        "first tokens read": " ".join(map(repr, origin["first_tokens"])) if origin.get("first_tokens") else None,
        "BOS": _bos(origin.get(BOS_IS_NATIVE)),
        "passages (hash)": origin.get("texts_hash"),
        "passages (n)": _count(record),
        "seed": record.parameters.get("seed"),
        "measurement version": record.version,
        "code": state,
        "measured": origin.get("time"),
        "seconds": origin.get("seconds"),
        "extent": "a first look: fewer and shorter texts" if origin.get(QUICK) else None,
    }
    return [(name, _text(value)) for name, value in facts.items() if value is not None]


def _code(model: Mapping[str, Any]) -> str | None:
    if model.get("code"):
        return "its own, which came with it"
    return "transformers' own; the code that came with it was not run" if model.get("code_left_aside") else None


def _bos(native: bool | None) -> str | None:
    if native is None:
        return None
    return "put first by the tokenizer" if native else "where there is one here, it was added; it is not native"


def _check(outputs: Mapping[str, Any] | None, weights: Mapping[str, Any] | None) -> str:
    """What was made sure of before the measurement, in words."""
    told = []
    if weights and weights.get("checked"):
        told.append("every parameter came from the file")
        if mapped := weights.get("mapped"):
            told.append(f"read under {mapped}")
        if ignored := weights.get("ignored"):
            count = weights.get("ignored_count", len(ignored))
            told.append(f"the model has no place for {count} of the file's tensors, {', '.join(ignored)} among them")
    if outputs and outputs.get("subject") == "unchecked":
        told.append("outputs with the probe were not compared with those without")
    elif outputs and outputs.get("subject") is not None:
        ran = " of a small random copy" if outputs["subject"] == "copy" else ""
        told.append(f"outputs{ran} with and without the probe differ by {outputs['logits']:.0e} of the largest")
        if outputs.get("attention") is not None:
            told.append(f"attention differs from eager by {outputs['attention']:.0e}")
    if told and outputs and outputs.get("stamped"):
        told.append(f"the check was made after the measurement, on {outputs['stamped']}")
    return "; ".join(told) or "not checked"


def _count(record: Record) -> int | None:
    """The n of the first estimate in a record; a chapter whose estimates differ in n says so itself."""
    for value in (record.values, *record.values.values()):
        if isinstance(value, Mapping) and isinstance(value.get("n"), int):
            return int(value["n"])
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rerun_command(chapter: str, parameters: Mapping[str, Any]) -> str:
    """The `firsttoken run` line for these parameters; values are read by the type the chapter declares."""
    options = " ".join(f"-p {name} {shlex.quote(_text(value))}" for name, value in parameters.items())
    return f"firsttoken run {chapter} {options}".strip()


def papermill_command(chapter: str, parameters: Mapping[str, Any]) -> str:
    """The same with papermill alone, which guesses types unless told: `-r` is raw text, `-y` is YAML."""
    options = " ".join(
        f"-r {name} {shlex.quote(value)}"
        if isinstance(value, str)
        else f"-y {shlex.quote(f'{name}: {json.dumps(value)}')}"
        for name, value in parameters.items()
    )
    return f"papermill notebooks/{chapter}.ipynb {chapter}.out.ipynb {options}".strip()
