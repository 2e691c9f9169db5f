"""Pages name local models and files by their last part; paths on the command line are the caller's."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from firsttoken import claims, models, records
from firsttoken.book import addresses, chapters, cluster
from firsttoken.book.page import provenance, rerun_command
from firsttoken.claims.scale.families import by_family
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT
from firsttoken.model_names import own_name
from firsttoken.pretraining.run_spec import Training
from firsttoken.records import Record
from small_book import notebook
from tiny import tiny_model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A caller's folder with a model in `runs/mine.v2`, beside a book in `book`."""
    (tmp_path / "book" / "notebooks").mkdir(parents=True)
    folder = tmp_path / "home" / "runs" / "mine.v2"
    tiny_model("llama").save_pretrained(folder)
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    return tmp_path / "home"


@pytest.mark.parametrize("typed", ["runs/mine.v2", "./runs/mine.v2", "./runs/mine.v2/", "{home}/runs/mine.v2"])
def test_the_address_is_the_slug_of_the_records(home: Path, typed: str) -> None:
    typed = typed.format(home=home)
    assert addresses.address(typed) == models.load(typed, device="cpu").slug == "mine-v2"
    assert addresses.shown(typed) == "mine.v2"


def test_names_that_are_no_paths_stay() -> None:
    assert addresses.address("/home/me/models/x.gguf") == "x"
    for public, place in (("org/New-1B", "org-new-1b"), ("smollm2-135m", "smollm2-135m")):
        assert addresses.address(public) == place
        assert addresses.shown(public) == addresses.title(public) == public
    assert addresses.address("a/one, b/two") == addresses.address("a/one,b/two, ") == "a-one-b-two"
    assert addresses.title("a/one,b/two,") == "a/one, b/two"


def test_two_models_of_one_name_are_refused() -> None:
    addresses.refuse_shared_addresses(["a/x", "a/y", "a/x"])
    with pytest.raises(FirstTokenError, match=r"\./a/final and \./b/final have the same name"):
        addresses.refuse_shared_addresses(["./a/final", "./b/final"])


def test_a_name_without_letters_of_the_alphabet_has_an_address_of_its_own() -> None:
    one, other = (addresses.address(name) for name in ("./!", "./千问"))
    assert one.startswith("model-")
    assert other.startswith("model-")
    assert one != other


def test_a_report_publishes_no_folder(home: Path, capsys: pytest.CaptureFixture) -> None:
    root, typed = home.parent / "book", str(home / "runs" / "mine.v2")
    (home / "my texts.txt").write_text("words")
    cells = (
        "from pathlib import Path\nprint('model', model, Path(model).resolve(), 'texts', texts)",
        "import sys\nassert '' not in sys.path, 'files of the caller are no modules'",
    )
    notebook(root, "works", *cells, parameters='model: str = "m"\ntexts: str = ""\n')
    folder = chapters.report(typed, asked={"texts": str(home / "my texts.txt")}, root=root)
    assert folder == root / "book" / "models" / "mine-v2"
    for page in (folder / "01-works.ipynb", folder / "index.md"):
        assert str(home.parent) not in page.read_text()
    assert "model mine.v2 mine.v2 texts my texts.txt" in (folder / "01-works.ipynb").read_text()
    assert (folder / "index.md").read_text().startswith("# mine-v2\n")
    assert "`firsttoken report mine.v2`" in (folder / "index.md").read_text()


def test_a_finished_page_is_known_by_where_its_model_lies(home: Path) -> None:
    root = home.parent / "book"
    notebook(root, "works", "print(model)", parameters='model: str = "m"\n')
    (run,) = cluster.plan_runs("runs/mine.v2", ["works"], {}, root)
    run()
    (again,) = cluster.plan_runs(str(home / "runs" / "mine.v2"), ["works"], {}, root)
    assert run.is_done()
    assert again.out == run.out
    (home / "other").mkdir()
    (home / "runs" / "mine.v2").rename(home / "other" / "mine.v2")
    (other,) = cluster.plan_runs("other/mine.v2", ["works"], {}, root)
    assert other.out == run.out
    assert not other.is_done(), "another model of the same name"


def test_the_foot_of_a_page_names_a_file_without_its_folder() -> None:
    origin = {"model": {"name": "/home/me/models/x.gguf"}}
    foot = provenance("sink_rates", {"model": "x.gguf"}, [Record("sink_rates", "x", {}, {}, origin)])
    assert "/home/me" not in foot.html + foot.text
    assert "x.gguf" in foot.html
    assert rerun_command("sink_rates", {"model": "x.gguf"}).endswith("-p model x.gguf")


# -- records --------------------------------------------------------------------------------------------------

HOME = "/home/somebody/of/mine"
SOURCES = {"model": f"{HOME}/x.gguf", "texts": f"{HOME}/texts.txt", "corpus": f"{HOME}/corpus"}
# Parameters that are words, each checked against a list or read as a text; none of them can be a path.
WORDS = {"execution", "text", "edit", "trigger", "bos"}


def of_local_files(claim: str = "scale") -> Record:
    """A record that names a model, texts and a corpus by their paths, wherever a record can."""
    return Record(
        claim=claim,
        model="x",
        parameters={
            "text_source": SOURCES["texts"],
            "corpus": {"source": SOURCES["corpus"]},
            "text": "km/h, l/s, W/m",
        },
        values={"mass": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}, "parameters": 1e6},
        provenance={"model": {"name": SOURCES["model"], "source": "gguf", "fingerprint": "f"}, "texts_hash": "abc"},
    )


def extension(name: str) -> ModuleType:
    """A Sphinx extension of the book."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_of_records_publish_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a build writes for the records at hand."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "local"))
    records.write(of_local_files())
    app = SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=str(tmp_path / "html"))
    extension("record_files").write_files(app, None)
    written = [file for file in (tmp_path / "html").rglob("*") if file.is_file()]
    assert {"x.json", "x.csv"} <= {file.name for file in written if file.parent.name == "scale"}
    assert [file for file in written if HOME in file.read_text(encoding="utf-8")] == []
    mine = records.read(tmp_path / "html" / "_static" / "results" / "scale" / "x.json")
    assert mine == addresses.published(of_local_files())
    assert mine.verdict == claims.verdict(of_local_files()) is not None, "judged, though its file is not"
    assert mine.provenance["model"] == {"name": "x.gguf", "source": "gguf", "fingerprint": "f"}
    assert mine.parameters == {"text_source": "texts.txt", "corpus": {"source": "corpus"}, "text": "km/h, l/s, W/m"}


def test_what_names_no_path_is_published_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    for record in records.all_records():
        assert addresses.published(record) == record
    hub = Record(
        "pretraining", "org-x", {"text_source": "org/set:part"}, {}, {"model": {"name": "org/x", "source": "hub"}}
    )
    assert addresses.published(hub) == hub


def test_every_parameter_of_a_measurement_is_a_path_or_a_word() -> None:
    """A parameter that may be a path is one of those that `published` looks at."""
    asked = [one.parameters for claim in claims.names() for one in claims.measurements(claim)]
    texts_or_words = {field.name for kind in asked for field in dataclasses.fields(kind) if field.type == "str"}
    assert texts_or_words - WORDS <= addresses.PATHS


@pytest.mark.parametrize("source", ["gguf", "folder", None])
@pytest.mark.parametrize("name", [f"{HOME}/x", "./x", "../x", "~/x", "~/a/b/x"])
def test_a_model_is_called_by_the_last_part_of_its_path(name: str, source: str | None) -> None:
    record = Record("scale", "x", {}, {"parameters": 1e6}, {"model": {"name": name, "source": source}})
    assert own_name(record) == "x"
    assert list(by_family([record])) == ["x"]
    assert own_name(dataclasses.replace(record, provenance={"model": {"name": ".", "source": "folder"}})) == "x"


def test_the_file_of_a_training_names_no_folder() -> None:
    assert Training(source=SOURCES["corpus"]).slug.endswith("-corpus")
    assert Training(source="org/set").slug.endswith("-org-set")


def test_a_printed_line_names_no_folder_of_this_machine() -> None:
    said = f"The record {records.local_store()}/scale/x.json and {ROOT}/src/y.py and {Path.home()}/z"
    output = nbformat.v4.new_output("stream", text=said)
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    page.metadata.papermill = nbformat.from_dict({"parameters": {}})
    addresses.hide_folders(page, {})
    assert page.cells[0].outputs[0].text == "The record results/local/scale/x.json and src/y.py and ~/z"


def test_relative_paths_are_those_of_the_caller(home: Path) -> None:
    """A real chapter, from a folder that is not the checkout, with a relative model, text file and store."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<s>": 1, "word": 2, "more": 3}
    tokenizer = Tokenizer(kinds.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(home / "runs" / "mine.v2")
    (home / "mytexts.txt").write_text("word " * 99 + "\n---\n" + "more " * 99)
    out = ROOT / "book" / "models" / "mine-v2"
    assert not out.exists()
    command = [sys.executable, "-m", "firsttoken.cli", "report", "runs/mine.v2", "sink_rates"]
    options = ["-p", "text_source", "mytexts.txt", "-p", "passages", "2", "-p", "length", "16", "-p", "longest", "32"]
    environment = {**os.environ, "FIRSTTOKEN_RESULTS": "myresults", "FIRSTTOKEN_CACHE": "mycache"}
    try:
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (page,) = out.glob("*.ipynb")
        assert str(home) not in page.read_text()
        assert nbformat.read(page, as_version=4).metadata.papermill.parameters["model"] == "mine.v2"
        assert (home / "myresults" / "sink_rates" / "mine-v2.json").exists()
    finally:
        shutil.rmtree(out, ignore_errors=True)
