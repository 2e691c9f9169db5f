"""Corpora to pretrain on: documents, tokenised once into a memory-mapped file of 16-bit numbers.

>>> corpus = open_corpus(CorpusSpec("python-source", vocabulary=8192))
>>> corpus.document(0)   # the tokens of one document, without BOS or EOS

`python-source` needs no download: the Python files of the installed environment, each text once, in the order of the
sha256 of their contents, which is the same on every machine with the same packages and as good as shuffled.
`python-functions` is the same, cut before every function and class, so that several documents share a window.
`generated` is the same everywhere: a language without end, see `generated_language`; `generated-notes` are short
documents of it, so that several share a window.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, typed_path, whole_folder
from firsttoken.pretraining import generated_language
from firsttoken.texts import hub
from firsttoken.texts.reading import read_text

BOS, EOS = 0, 1
VALIDATION = 20  # one document in so many is held out
TOKENIZER_MEGABYTES = 20  # of text that the tokenizer is trained on; more changes next to nothing
LEAST_CHARACTERS = 200  # shorter documents are left out
_FORMAT = 1
GENERATED, NOTES = "generated", "generated-notes"
_INSTALLED = ("python-source", "python-functions")
_DEFINITION = re.compile(r"^(?:(?: {4})?@[^\n]*\n)*(?: {4})?(?:async def|def|class) ", re.MULTILINE)
_FILES = ("tokens.u16", "ends.npy", "tokenizer.json")


@dataclass(frozen=True)
class CorpusSpec:
    """Which text, how much of it, and how large a vocabulary."""

    # `python-source`, `python-functions`, `generated`, `generated-notes`, a text file, a folder, a data set id
    # `org/name[:configuration]`
    source: str = "python-source"
    vocabulary: int = 8192
    megabytes: float = 0.0  # of text at most; 0: all


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus on disk. `hash` identifies text, tokenizer and tokens."""

    spec: CorpusSpec
    folder: Path
    hash: str

    @cached_property
    def tokens(self) -> NDArray[np.uint16]:
        """All documents one after the other, (token,)."""
        return np.memmap(self.folder / "tokens.u16", dtype=np.uint16, mode="r")

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Where each document ends in `tokens`, (document,)."""
        return np.asarray(np.load(self.folder / "ends.npy"))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, (document,)."""
        return np.diff(self.ends, prepend=0)

    def document(self, number: int) -> NDArray[np.uint16]:
        """The tokens of one document."""
        return np.asarray(self.tokens[self.ends[number] - self.lengths[number] : self.ends[number]])

    def numbers(self, held_out: bool, least: int = 0) -> NDArray[np.int64]:
        """The numbers of the documents to train on, or of those held out, with at least so many tokens."""
        every = np.arange(len(self.ends))
        return every[((every % VALIDATION == VALIDATION - 1) == held_out) & (self.lengths >= least)]

    def tokenizer(self, with_bos: bool) -> Any:
        """The tokenizer as transformers knows it; `with_bos` makes it put the BOS token first."""
        from transformers import PreTrainedTokenizerFast

        raw = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        if with_bos:
            raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
        return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>")


@cache
def open_corpus(spec: CorpusSpec) -> Corpus:
    """The corpus from the cache, or made now.

    A cached file whose size or sha256 is not the noted one is made again, and a line says so.

    Raises:
        FirstTokenError: there is no such text, it is too short, or the vocabulary does not fit into 16 bits.
    """
    if not 300 <= spec.vocabulary <= 1 << 16:
        raise FirstTokenError(f"A vocabulary has 300 to 65536 tokens, not {spec.vocabulary}.")
    texts, key = _text(spec)
    folder = cache_folder() / "corpora" / key
    if folder.exists():
        if (digest := _checked(folder)) is not None:
            return Corpus(spec, folder, digest)
        print(f"The cached corpus in {folder} is damaged; it is made again.", flush=True)
        shutil.rmtree(folder)
    with whole_folder(folder, holds="corpus.json") as partial:
        _make(spec, texts, partial)
    digest = _checked(folder)
    if digest is None:
        raise FirstTokenError(f"The corpus in {folder} could not be written; check the space left on that disk.")
    return Corpus(spec, folder, digest)


def _text(spec: CorpusSpec) -> tuple[Iterator[str], str]:
    """The documents, and the name of their tokenised copy in the cache."""
    limit = spec.megabytes * 1e6 if spec.megabytes else float("inf")
    if spec.source in (GENERATED, NOTES):
        if not spec.megabytes:
            raise FirstTokenError("The generated language has no end; say how many megabytes of it are wanted.")
        texts = generated_language.notes() if spec.source == NOTES else generated_language.documents()
        return _first(texts, limit), _key(spec, f"{spec.source} {generated_language.VERSION}")
    path = typed_path(spec.source)
    if spec.source in _INSTALLED or path.exists():
        if spec.source in _INSTALLED:
            files = [file for root in _python_folders() for file in Path(root).rglob("*.py")]
        else:
            files = [path] if path.is_file() else [f for f in path.rglob("*") if f.suffix in (".txt", ".md", ".py")]
        contents = _by_content(files)
        digest = hashlib.sha256(b"".join(bytes.fromhex(name) for name in contents)).hexdigest()
        texts = _read_installed(contents) if spec.source in _INSTALLED else map(read_text, contents.values())
        if spec.source == "python-functions":
            texts = (part for text in texts for part in functions(text))
        return _first(texts, limit), _key(spec, digest)
    if hub.is_id(spec.source):
        commit, rows = hub.stream(spec.source)
        return _first(rows, limit), _key(spec, commit)
    raise FirstTokenError(
        f"There is no corpus {spec.source!r}; use 'python-source', 'python-functions', 'generated', "
        "'generated-notes', a text file, a folder, or a data set id org/name."
    )


def functions(text: str) -> list[str]:
    """A Python file cut before each function and class that is indented by at most one level, decorators included."""
    cuts = [0, *(definition.start() for definition in _DEFINITION.finditer(text)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts) if end > start]


def _python_folders() -> set[str]:
    return {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}


def _by_content(files: list[Path]) -> dict[str, Path]:
    """sha256 of the content -> one file that has it, in the order of the hash."""
    by_hash: dict[str, Path] = {}
    for file in files:
        try:
            by_hash.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), file)
        except OSError:
            continue
    return dict(sorted(by_hash.items()))


def _read_installed(contents: dict[str, Path]) -> Iterator[str]:
    """Files that nobody here wrote: a few of them, made to test other encodings, are no UTF-8."""
    for file in contents.values():
        yield file.read_text(encoding="utf-8", errors="replace")


def _first(texts: Iterator[str], limit: float) -> Iterator[str]:
    read = 0
    for text in texts:
        if len(text) < LEAST_CHARACTERS:
            continue
        yield text
        read += len(text)
        if read >= limit:
            return


def _key(spec: CorpusSpec, content: str) -> str:
    told = json.dumps([_FORMAT, asdict(spec), content], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _make(spec: CorpusSpec, texts: Iterator[str], folder: Path) -> None:
    print(f"Tokenising {spec.source}, once", flush=True)
    # The first documents train the tokenizer, and then become the first ones of the corpus.
    head = list(_first(texts, TOKENIZER_MEGABYTES * 1e6))
    if len(head) < 2 * VALIDATION:
        raise FirstTokenError(
            f"{spec.source} has {len(head)} documents of {LEAST_CHARACTERS} characters or more; to train and to hold "
            f"some out takes {2 * VALIDATION} at least."
        )
    tokenizer = _train_tokenizer(head, spec.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends, total = [], 0
    with (folder / "tokens.u16").open("wb") as file:
        for batch in _batches(itertools.chain(head, texts), 256):
            for encoded in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                np.array(encoded.ids, dtype=np.uint16).tofile(file)
                total += len(encoded.ids)
                ends.append(total)
    np.save(folder / "ends.npy", np.array(ends, dtype=np.int64))
    noted = {name: [(folder / name).stat().st_size, _sha256(folder / name)] for name in _FILES}
    (folder / "corpus.json").write_text(json.dumps({"files": noted, "spec": asdict(spec)}))


def _train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<bos>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _batches(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(itertools.islice(texts, size)):
        yield batch


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checked(folder: Path) -> str | None:
    """The hash of a cached corpus; None where a file is missing or not as it was written."""
    try:
        noted = json.loads((folder / "corpus.json").read_text())["files"]
        for name in _FILES:
            size, digest = noted[name]
            if (folder / name).stat().st_size != size or _sha256(folder / name) != digest:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256(json.dumps(noted, sort_keys=True).encode()).hexdigest()[:16]
