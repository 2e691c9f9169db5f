"""The package gguf's reader of files, for whoever reads a file several times. Imported where a file is read, since
training needs no such package.

>>> with parsed_once():
...     AutoConfig.from_pretrained(folder, gguf_file="model.gguf")      # transformers parses the file here
...     AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")   # and not again here
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import gguf
import numpy as np


class PlainReader(gguf.GGUFReader):
    """Reads a file through plain arrays.

    The reader makes a slice of the file for every word of a vocabulary, a million for a large one, and numpy takes
    several times as long for one of its class of mapped files.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, np.asarray(value) if isinstance(value, np.memmap) else value)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Within it whoever opens a file with `gguf.GGUFReader` gets the same reader for the same path.

    For files that nobody changes meanwhile. transformers opens a file anew for its configuration, its tokenizer and
    its weights.
    """

    @cache
    def of(path: str) -> PlainReader:
        return PlainReader(path)

    def reader(path: str | os.PathLike[str], mode: str = "r") -> gguf.GGUFReader:
        return of(os.fspath(path)) if mode == "r" else gguf_reader(path, mode)  # type: ignore[arg-type]

    gguf_reader = gguf.GGUFReader
    with mock.patch.object(gguf, "GGUFReader", reader):
        yield
