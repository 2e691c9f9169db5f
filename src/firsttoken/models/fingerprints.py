"""Whose record is it: a hash of everything in a model folder that can change a number, every byte of it.

Hashing hundreds of gigabytes takes minutes, so the hash of a file is remembered in the cache folder, by its path,
size, times and inode. An edit in the middle of a shard changes the times and is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, write_atomically
from firsttoken.models.checkpoint import Checkpoint

# What a tokenizer, a configuration or code that comes with a model is read from.
_READ_BY_LOADERS = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*vocab*",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.codes",
    "*.tokenizer",
    "*.tiktoken",
    "*tekken*.json",
    "dict*.txt",
    "byte_maps.json",
    "emoji.json",
    "normalizer.json",
    "word_*.json",
    "*.py",
)
# A file system notes times in steps; what was written within one step of being hashed may yet change unseen.
_SETTLED = 2.0  # seconds


def folder_fingerprint(checkpoint: Checkpoint) -> str:
    """The sha256 of a folder's weights, configuration, tokenizer files and code, each under its name."""
    folder = checkpoint.folder
    named = {path for pattern in _READ_BY_LOADERS for path in folder.glob(pattern) if path.is_file()}
    files = sorted(named | set(checkpoint.shards))
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        digests = list(pool.map(file_sha256, files))
    whole = hashlib.sha256()
    for path, digest in zip(files, digests, strict=True):
        whole.update(f"{path.name}\0{digest}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of all bytes of a file, computed once for as long as the file stays as it is."""
    path = path.resolve()
    before = path.stat()
    state = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    note = cache_folder() / "fingerprints" / f"{key}.json"
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["state"] == state:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never hashed, or by something that did not finish
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time() - before.st_mtime > _SETTLED and path.stat().st_mtime_ns == before.st_mtime_ns:
        with suppress(
            OSError, UnicodeEncodeError, FirstTokenError
        ):  # a cache that cannot be written costs time, no number
            write_atomically(note, json.dumps({"path": str(path), "state": state, "sha256": digest}))
    return digest
