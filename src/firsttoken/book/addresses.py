"""What a published page calls a model or a file: never by the folder where it lies on this machine.

`/home/me/models/x.gguf` has the address `x`, and commands on its pages say `x.gguf`. A hub id is public and stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from firsttoken import claims
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT, begins_as_path, slug, typed_path
from firsttoken.model_names import own_name
from firsttoken.models.bundled import BUNDLED
from firsttoken.parameters import names_in
from firsttoken.records import Record, local_store


def is_local(model: str) -> bool:
    """Whether a model's name is a path, by the rules of `models.load`; the path need not exist."""
    if model in BUNDLED:
        return False
    is_path = model.endswith(".gguf") or begins_as_path(model) or model.count("/") > 1
    return is_path or typed_path(model).is_dir()


def shown(model: str) -> str:
    """The model's name in commands on a page: a local one by the last part of its path."""
    return _last_part(model) if is_local(model) else model


def address(model: str) -> str:
    """The slug of a model as in its records, for the folder of its pages; several names are joined."""
    names = [shown(name).removesuffix(".gguf") for name in names_in(model)]
    return "-".join(filter(None, map(slug, names)))


def title(model: str) -> str:
    """The heading of a model's pages: its hub id, or the slug of a local one."""
    return ", ".join(address(name) if is_local(name) else name for name in names_in(model))


# The parameters in a record, at any depth, that may be a path on the machine that measured it.
PATHS = frozenset({"text_source", "source", "short"})


def published(record: Record) -> Record:
    """A record as the book gives it away: its model and its texts by the last part of a path, and judged by today's
    rule as on its page, which is more than the file of one that was measured for another claim says.

    All else stays as it is, fingerprint and hash of the texts included.
    """
    origin = record.provenance.get("model")
    named = {"model": {**origin, "name": own_name(record)}} if origin and "name" in origin else {}
    return replace(
        record,
        parameters=_without_folders(record.parameters),
        provenance={**record.provenance, **named},
        verdict=claims.verdict(record) or record.verdict,
    )


def _without_folders(parameters: Mapping[str, Any]) -> dict[str, Any]:
    shown_here: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            value = _without_folders(value)
        elif name in PATHS and isinstance(value, str):
            value = _shown_texts(value)
        shown_here[name] = value
    return shown_here


def _shown_texts(source: str) -> str:
    """A source of texts: a file or folder, here or where it was read, by the last part of its path; a name or the id
    of a data set stays."""
    is_path = is_local(source) or _is_path(source) or source.lower().endswith((".txt", ".md"))
    return _last_part(source) if is_path else source


def refuse_shared_addresses(models: Iterable[str]) -> None:
    """Refuse two models whose pages and records would overwrite each other.

    Raises:
        FirstTokenError: two different names have one address.
    """
    taken: dict[str, str] = {}
    for model in models:
        place = address(model)
        if taken.setdefault(place, model) != model:
            raise FirstTokenError(
                f"{taken[place]} and {model} have the same name {place}, so one would overwrite the pages of the "
                "other; rename one or link to it under another name."
            )


def asked(values: Mapping[str, Any]) -> str:
    """A short hash of a chapter's parameters, which tells files of one name in two folders apart."""
    where = {text: str(typed_path(text).resolve()) for text in _paths(values)}
    return hashlib.sha256(json.dumps([dict(values), where], sort_keys=True).encode()).hexdigest()[:16]


def hide_folders(notebook: Any, values: Mapping[str, Any]) -> None:
    """Take the folders of the files that `values` names out of an executed notebook: out of the cell with its
    parameters, its outputs and its metadata, which gets the hash `asked`. Cells of the chapter stay as they are.

    Lines that a chapter prints may name other files of this machine; the checkout's and the home folder go."""
    here = {f"{local_store().resolve()}/": "results/local/", f"{ROOT}/": "", f"{Path.home()}/": "~/"}
    folders = _folders(values) | here
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = _replaced(cell.source, folders)
        if "outputs" in cell:
            cell.outputs = _replaced(cell.outputs, folders)
    notebook.metadata.papermill.parameters = _replaced(dict(values), folders)
    notebook.metadata.papermill.asked = asked(values)


def _last_part(path: str) -> str:
    return typed_path(path).name or Path(path).resolve().name


def _paths(values: Mapping[str, Any]) -> list[str]:
    """Every path of an existing file or folder that `values` names, as it was typed."""
    typed = (name for value in values.values() if isinstance(value, str) for name in names_in(value))
    # Without a separator there is no folder to hide, and a short word may occur anywhere.
    return [text for text in typed if _is_path(text)]


def _is_path(text: str) -> bool:
    try:
        path = typed_path(text)
    except FirstTokenError:
        return False  # a passage, too long for a path
    return len(path.parts) > 1 and path.exists()


def _folders(values: Mapping[str, Any]) -> dict[str, str]:
    """{path as it may occur on a page: its last part}, the longest first."""
    named: dict[str, str] = {}
    for text in _paths(values):
        path = typed_path(text)
        named |= dict.fromkeys((text, str(path), str(path.resolve())), _last_part(text))
    named |= {escape(path): escape(last) for path, last in named.items()}
    return dict(sorted(named.items(), key=lambda item: -len(item[0])))


def _replaced(value: Any, by: Mapping[str, str]) -> Any:
    """`value` with the keys of `by` replaced in every text inside it, at any depth."""
    if isinstance(value, str):
        for old, new in by.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return type(value)({key: _replaced(part, by) for key, part in value.items()})
    return [_replaced(part, by) for part in value] if isinstance(value, list) else value
