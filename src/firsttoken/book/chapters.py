"""The chapters: which there are, what parameters they take, and how one is run.

A chapter is `notebooks/<name>.ipynb`, without outputs. Running it executes a copy with papermill and puts
the result into `book/chapters/` in one step at the end, so that a run that fails, is interrupted or is killed
leaves the published page as it was. A failed run is kept in `.failed/` beside the pages, never published.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from firsttoken import claims
from firsttoken.book.addresses import address, hide_folders, refuse_shared_addresses, shown, title
from firsttoken.book.ahead import Ahead
from firsttoken.book.prose import leave_out_other_models
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT, refuse_unwritable, slug, write_atomically
from firsttoken.parameters import Parameter, names_in, renamed
from firsttoken.processes import is_running

SENTENCES = ("FirstTokenError", "AlreadyTraining")  # by name, which is all that a notebook's process tells


def chapters(root: Path = ROOT) -> list[str]:
    """The names of all chapters: first those in the table of contents, in its order, then any others."""
    present = {path.stem for path in (root / "notebooks").glob("*.ipynb")}
    in_order = listed(root)
    return [name for name in in_order if name in present] + sorted(present - set(in_order))


def listed(root: Path = ROOT) -> list[str]:
    """The names of the chapters in the table of contents, in its order."""
    contents = (root / "_toc.yml").read_text(encoding="utf-8") if (root / "_toc.yml").exists() else ""
    return re.findall(r"^\s*- file: book/chapters/(\S+)", contents, re.MULTILINE)


def practice(root: Path = ROOT) -> list[str]:
    """The chapters that someone who serves a model should run on it."""
    return [name for name in chapters(root) if name in claims.names() and claims.claim(name).practice]


def source(chapter: str, root: Path = ROOT) -> Path:
    """The notebook of a chapter; an unknown name is an error that offers the nearest one."""
    if chapter not in (known := chapters(root)):
        raise FirstTokenError(f"There is no chapter {chapter}{_nearest(chapter, known)}.")
    return root / "notebooks" / f"{chapter}.ipynb"


def parameters(chapter: str, root: Path = ROOT) -> dict[str, Parameter]:
    """The parameters that a chapter declares: the assignments of its cell tagged `parameters`.

    Read here and not by papermill, which overlooks annotations such as `str | None`.
    """
    cells = read_notebook(source(chapter, root)).cells
    code = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    lines = code.splitlines()
    declared = {}
    for node in ast.parse(code).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        value = getattr(node, "value", None)
        if not isinstance(target, ast.Name) or value is None:
            continue
        kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else _type(value)
        _, _, comment = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :].partition("#")
        declared[target.id] = Parameter(target.id, kind, ast.unparse(value), comment.strip())
    return declared


def read_notebook(notebook: Path) -> Any:
    """A notebook; one that is damaged is a sentence."""
    try:
        return nbformat.read(notebook, as_version=4)
    except (nbformat.reader.NotJSONError, UnicodeDecodeError) as error:
        raise FirstTokenError(f"{notebook} is no notebook ({str(error)[:80]}); restore it from git.") from error


def _type(default: ast.expr) -> str:
    try:
        return type(ast.literal_eval(default)).__name__
    except ValueError:
        return "str"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}" if near else f"; known are {', '.join(known) or 'none'}"


def choose(asked: Mapping[str, str], names: Sequence[str], root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """For each chapter the values, parsed, of those parameters in `asked` that it declares.

    A parameter that none of the chapters declares is an error, and so is a value of the wrong type.
    """
    declared = {name: parameters(name, root) for name in names}
    by_chapter = {name: renamed(asked, of_chapter) for name, of_chapter in declared.items()}
    for key in asked:
        if not any(key not in by_chapter[name] or key in of_chapter for name, of_chapter in declared.items()):
            known = sorted({name for of_chapter in declared.values() for name in of_chapter})
            raise FirstTokenError(f"{', '.join(names)}: there is no parameter {key}{_nearest(key, known)}.")
    return {
        name: {key: of_chapter[key].parse(text) for key, text in by_chapter[name].items() if key in of_chapter}
        for name, of_chapter in declared.items()
    }


def run_chapter(
    chapter: str,
    values: Mapping[str, Any],
    out: Path | None = None,
    root: Path = ROOT,
    ahead: Ahead | None = None,
    following: tuple[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Execute a chapter and publish it at `out` (by default `book/chapters/<chapter>.ipynb`) if it succeeds.

    Args:
        ahead: measures what the chapter asks for before its notebook runs.
        following: the next chapter and its values, measured while this notebook only shows what is there.

    Raises:
        FirstTokenError: the chapter or a parameter is unknown, or a cell failed. What ran until then is in
            the folder `.failed` beside `out`, and the message says where.
    """
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    notebook = source(chapter, root)
    known = parameters(chapter, root)
    for key in values:
        if key not in known:
            raise FirstTokenError(f"{chapter}: there is no parameter {key}{_nearest(key, list(known))}.")
    out = out or root / "book" / "chapters" / f"{chapter}.ipynb"
    refuse_unwritable(out, "Pages", "move away what is there, or make room")
    _remove_partials(out)
    partial = out.parent / f".{out.stem}.{os.getpid()}.partial.ipynb"
    failed = out.parent / ".failed" / out.name
    start = time.perf_counter()
    print(f"{chapter}: running", flush=True)
    if ahead is not None and ahead.measure(chapter, values):
        if "fresh" in values:
            values = {**values, "fresh": False}  # it is
        if following is not None:
            ahead.begin(*following)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(partial),
            parameters=dict(values),
            kernel_name="python3",
            # As with papermill by hand: paths in parameters and in the environment are the caller's.
            cwd=os.getcwd(),
            progress_bar=sys.stderr.isatty(),
            autosave_cell_every=0,
            start_timeout=120,
            # Each kernel would warn that it listens on a local port, and complain of being stopped; and a file
            # random.py in the caller's folder is no module.
            extra_arguments=["--log-level=CRITICAL", "--InteractiveShellApp.ignore_cwd=True"],
        )
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        _keep_aside(partial, failed)
        # A sentence written for the user stands alone; for anything else the notebook has the traceback.
        cause = error.evalue if error.ename in SENTENCES else f"{error.ename}: {error.evalue}"
        raise FirstTokenError(f"{chapter} failed: {cause} (as far as it ran: {failed})") from error
    except DeadKernelError as error:
        _keep_aside(partial, failed)
        raise FirstTokenError(
            f"{chapter} failed: its Python process was ended from outside, most often for want of memory; "
            f"try a smaller model or fewer passages (as far as it ran: {failed})."
        ) from error
    except (NoSuchKernel, RuntimeError, OSError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FirstTokenError(
            f"{chapter} could not be started ({told}); see that there is room on the disk and that the Jupyter kernel "
            "python3 starts (`make install`, or `python -m ipykernel install --sys-prefix`)."
        ) from error
    else:
        write_atomically(out, _without_paths(partial, notebook, values, root))
        failed.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{chapter}: done in {time.perf_counter() - start:.0f} s -> {out}", flush=True)
    return out


def run_chapters(jobs: Sequence[tuple[str, Mapping[str, Any], Path | None]], root: Path = ROOT) -> list[Path]:
    """Run several chapters; one that fails leaves the others, and the error at the end names all failures.

    What they measure is measured in one process for all of them, each before its notebook and most while the one
    before is shown; see `ahead`.
    """
    done: list[Path] = []
    failures: list[str] = []
    with Ahead(root) as ahead:
        for number, (chapter, values, out) in enumerate(jobs, 1):
            following = jobs[number][:2] if number < len(jobs) else None
            try:
                done.append(run_chapter(chapter, values, out, root, ahead, following))
            except FirstTokenError as error:
                print(f"{chapter}: failed", flush=True)
                failures.append(str(error))
    if failures:
        raise FirstTokenError("\n".join(failures))
    return done


def report(
    model: str,
    names: Sequence[str] = (),
    asked: Mapping[str, str] | None = None,
    root: Path = ROOT,
    *,
    quick: bool = False,
) -> Path:
    """Run every chapter that has a parameter `model` for one model, into `book/models/<address>/`.

    The folder becomes part of the book at the next build. A chapter that fails leaves the others.

    Args:
        model: anything that the chapters' `model` parameter accepts.
        names: only these chapters.
        asked: further parameters, as text, each given to the chapters that declare it.
        quick: a first look with fewer and shorter texts, marked as such and without verdicts.
    """
    chosen = [name for name in names or chapters(root) if "model" in parameters(name, root)]
    if not chosen:
        raise FirstTokenError("None of these chapters has a parameter model, so there is nothing to report.")
    if not names_in(model):
        raise FirstTokenError("This report is about no model; give a bundled name, hub id, folder or .gguf file.")
    refuse_shared_addresses([model])
    folder = root / "book" / "models" / address(model)
    values = choose({**(asked or {}), "model": model, **({"quick": "true"} if quick else {})}, chosen, root)
    position = {name: i for i, name in enumerate(chapters(root), 1)}
    jobs = [(name, values[name], folder / f"{position[name]:02d}-{name}.ipynb") for name in chosen]
    try:
        run_chapters(jobs, root)
    finally:
        write_index(model, folder)
    return folder


def write_index(model: str, folder: Path) -> None:
    """The first page of a model's part of the book, if it has any other."""
    if pages := sorted(folder.glob("[0-9]*.ipynb")):
        lines = "\n".join(f"- [](./{page.name})" for page in pages)
        name, command = title(model), shlex.join(["firsttoken", "report", ",".join(map(shown, names_in(model)))])
        text = f"The chapters of this book, run for `{name}` with `{command}`."
        write_atomically(folder / "index.md", f"# {name}\n\n{text}\n\n{lines}\n")


def _has_default_models(chapter: str, model: str, root: Path) -> bool:
    return bool(parameters(chapter, root)["model"].value == model)


def _keep_aside(partial: Path, failed: Path) -> None:
    if partial.exists():
        write_atomically(failed, partial.read_text(encoding="utf-8"))


def _remove_partials(out: Path) -> None:
    """Remove what killed runs of this page left; a run that is still alive keeps its file."""
    for old in out.parent.glob(f".{out.stem}.*.partial.ipynb"):
        number = old.name.split(".")[-3]
        if number.isdecimal() and not is_running(int(number)):
            old.unlink(missing_ok=True)


_PARAMETERS = {"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}


def _fold_code(content: Any) -> None:
    """Close the code of a page, so that a reader meets text and figures first; it opens by mouse and by keyboard."""
    for cell in content.cells:
        if cell.cell_type == "code":
            tags = cell.metadata.setdefault("tags", [])
            tags.append("hide-input")
            if {"parameters", "injected-parameters"} & set(tags):
                cell.metadata["mystnb"] = _PARAMETERS


def _without_paths(executed: Path, notebook: Path, values: Mapping[str, Any], root: Path) -> str:
    """The executed notebook as text; where its files lie on this machine is nobody's business."""
    content = nbformat.read(executed, as_version=4)
    if "model" in values and not _has_default_models(notebook.stem, values["model"], root):
        leave_out_other_models(content, [slug(name) for name in names_in(str(values["model"]))])
    content.metadata.papermill.update(
        input_path=notebook.relative_to(root).as_posix(), output_path=None, environment_variables={}
    )
    hide_folders(content, values)
    _fold_code(content)
    return str(nbformat.writes(content)) + "\n"
