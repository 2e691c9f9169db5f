"""Another number, token or line of code is another model; the same bytes are read once."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
import transformers

from firsttoken import models
from firsttoken.models import fingerprints
from firsttoken.models.checkpoint import open_checkpoint
from firsttoken.models.fingerprints import file_sha256
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("own_cache")


def test_everything_that_a_number_depends_on_counts(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    seen = [models.load(str(tmp_path)).fingerprint]
    assert models.load(str(tmp_path)).fingerprint == seen[0]
    shard = tmp_path / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1  # one bit in the middle of the numbers
    shard.write_bytes(content)
    seen.append(models.load(str(tmp_path)).fingerprint)
    for name in ("tokenizer_config.json", "tokenizer.json", "merges.txt", "code.py", "spiece.model"):
        (tmp_path / name).write_text("{}")
        seen.append(models.load(str(tmp_path)).fingerprint)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    seen.append(models.load(str(tmp_path)).fingerprint)
    assert len(set(seen)) == len(seen)
    (tmp_path / "README.md").write_text("about")
    assert models.load(str(tmp_path)).fingerprint == seen[-1]


def test_every_file_that_a_tokenizer_is_read_from_counts(tmp_path: Path) -> None:
    """The names that transformers' tokenizer classes ask for, and Mistral's own."""
    named = {"tekken.json", "mistral-tekken-v3.json"}
    for code in Path(transformers.__file__).parent.rglob("tokenization_*.py"):
        if listed := re.search(r"VOCAB_FILES_NAMES\s*=\s*\{(.*?)\}", code.read_text(encoding="utf-8"), re.S):
            named |= set(re.findall(r""":\s*["']([^"']+)["']""", listed[1]))
    assert len(named) > 20
    tiny_model("llama").save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    seen = [fingerprints.folder_fingerprint(checkpoint)]
    for name in sorted(named):
        (tmp_path / name).write_text("{}")
        seen.append(fingerprints.folder_fingerprint(checkpoint))
        assert seen[-1] != seen[-2], name


def test_bytes_are_hashed_once_while_a_file_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    read: list[object] = []
    real = hashlib.file_digest
    monkeypatch.setattr(fingerprints.hashlib, "file_digest", lambda *a: read.append(a) or real(*a))

    def digest(content: bytes, age: float) -> str:
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
            then = os.stat(file).st_mtime - age
            os.utime(file, (then, then))
        answer = file_sha256(file)
        assert answer == hashlib.sha256(content).hexdigest()
        return answer

    for _ in range(3):
        digest(b"old", 60)
    assert len(read) == 1
    digest(b"new", 60)  # as long, and as old
    assert len(read) == 2
    for _ in range(2):
        digest(b"just written", 0)  # may change again within one tick of the clock, so it is not remembered
    assert len(read) == 4
    (tmp_path / "cache" / "fingerprints").chmod(0o500)
    next((tmp_path / "cache" / "fingerprints").iterdir()).write_text("half")
    digest(b"just written", 0)
