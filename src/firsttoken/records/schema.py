"""Records of earlier versions of this project: what each field is called now.

Schema 1 (until November 2026) to 2: parameters that stood under another parameter's name got their own, `texts` is
called `text_source` where it names texts and `texts_hash` where it is their hash, lengths that do not count the BOS
token are called `text_tokens`, and the claim `where` is called `sink_position`. No measured value changes.
Schema 2 to 3: the verdict "not measured" of what was measured and could not decide is called "inconclusive".
Schema 3 to 4: the two other lengths that do not count the BOS token end in `text_tokens` too (`RENAMED`).
A parameter that a measurement got later has, in records that lack it, the value that says what they did (`ADDED`).

    python -m firsttoken.records results        # rewrites the records below a folder
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from firsttoken.estimates import JSON
from firsttoken.files import write_atomically

SCHEMA = 4
FORMER_CLAIMS = {"where": "sink_position"}
ADDED: Mapping[tuple[str, str], JSON] = {  # by claim and variant
    ("compression", ""): {"removal_only": False},
    ("compression", "tasks"): {"task_questions": 64},
    ("dose", ""): {"noise_seeds": 3},
    ("removal", ""): {"task_questions": 64},
    ("robustness", ""): {"noise_seeds": 3},
    ("sink_rates", "length"): {"sweep_tokens": 8192},
}
# {claim and variant: {former name of a parameter: its name from schema 4 on}}
RENAMED: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("smoothing", "length"): {"longest": "longest_text_tokens"},
    ("theory", ""): {"bound_length": "bound_text_tokens"},
}
# Their `length` did not count the BOS token.
_TEXT_TOKENS = frozenset({"perturbation", "smoothing", "jacobian", "theory", "robustness"})


def _chosen(**present: str) -> Callable[[JSON], JSON]:
    """Only these parameters, each with its former name; what an old record lacks stays out."""
    return lambda old: {name: old[former] for name, former in present.items() if former in old}


# What a variant's parameters were, where other parameters stood under these names.
_VARIANTS: Mapping[tuple[str, str], Callable[[JSON], JSON]] = {
    ("removal", "long"): _chosen(longest="length", windows="passages", epsilon="epsilon", bos="bos", seed="seed"),
    ("sink_rates", "length"): _chosen(longest="length", epsilon="epsilon", bos="bos", seed="seed"),
    ("sink_rates", "bos"): lambda old: {**old, "bos": "auto"},
    ("smoothing", ""): lambda old: {name: old[name] for name in old if name not in ("longest", "windows")},
    ("kv_cache", ""): lambda old: {name: old[name] for name in old if name != "stream"},
}


def to_present(record: JSON) -> JSON:
    """The content of a record's file in today's schema, with the parameters that came later; a record of no
    known schema or with fields of another kind as it is."""
    kinds = {"claim": str, "variant": str, "parameters": dict, "provenance": dict}
    if record.get("schema") not in (1, 2, 3, SCHEMA) or any(
        not isinstance(record.get(field, kind()), kind) for field, kind in kinds.items()
    ):
        return record
    if record["schema"] == 1:
        record = _to_second(record)
    if record["schema"] == 2:
        record = _to_third(record)
    if record["schema"] == 3:
        record = _to_fourth(record)
    added = ADDED.get((record.get("claim", ""), record.get("variant", "")), {})
    if added and "parameters" in record:
        record = {**record, "parameters": {**added, **record["parameters"]}}
    return record


def _to_second(record: JSON) -> JSON:
    claim, variant = record.get("claim", ""), record.get("variant", "")
    parameters, provenance = dict(record.get("parameters", {})), dict(record.get("provenance", {}))
    parameters = _VARIANTS.get((claim, variant), dict)(parameters)
    if claim in _TEXT_TOKENS and "length" in parameters:
        parameters["text_tokens"] = parameters.pop("length")
    if "texts" in parameters and isinstance(parameters["texts"], str):
        parameters["text_source"] = parameters.pop("texts")
    if "texts" in provenance:
        provenance["texts_hash"] = provenance.pop("texts")
    return {
        **record,
        "claim": FORMER_CLAIMS.get(claim, claim),
        "parameters": parameters,
        "provenance": provenance,
        "schema": 2,
    }


def _to_third(record: JSON) -> JSON:
    verdict = record.get("verdict")
    if isinstance(verdict, dict) and verdict.get("status") == "not measured":
        verdict = {**verdict, "status": "inconclusive"}
    return {**record, "verdict": verdict, "schema": 3}


def _to_fourth(record: JSON) -> JSON:
    present = RENAMED.get((record.get("claim", ""), record.get("variant", "")), {})
    parameters = {present.get(name, name): value for name, value in record.get("parameters", {}).items()}
    return {**record, **({"parameters": parameters} if "parameters" in record else {}), "schema": 4}


def rewrite(folder: Path) -> list[Path]:
    """Bring every record below a store to today's schema, in its place or in the folder of its claim's new name. One
    that a newer record there hides stays as it is.

    Returns:
        the files that were written
    """
    written = []
    for path in sorted(folder.glob("*/*.json")):
        old = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(old, dict) or (new := to_present(old)) == old:
            continue
        target = folder / FORMER_CLAIMS.get(path.parent.name, path.parent.name) / path.name
        if target != path and target.exists():
            continue
        write_atomically(target, json.dumps(new, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        if target != path:
            path.unlink()
        written.append(target)
    return written
