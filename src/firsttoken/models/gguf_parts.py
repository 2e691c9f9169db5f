"""A model in several GGUF files, `name-00001-of-00003.gguf` and so on, as one file in the cache.

The first part has the keys, every part its own tensors. Whichever part is named, all of them are read.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from firsttoken.errors import FirstTokenError
from firsttoken.files import cache_folder, whole_file
from firsttoken.models.fingerprints import file_sha256
from firsttoken.models.gguf_header import GgufHeader, read_gguf_header
from firsttoken.models.weight_check import some

if TYPE_CHECKING:
    from firsttoken.models.gguf_reading import PlainReader

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)


def whole(file: Path) -> Path:
    """The file itself, or where its name says that it is one of several parts, the file that they make together.

    Raises:
        FirstTokenError: a part is missing, damaged, or of another model; it is named.
    """
    match = _PART.fullmatch(file.name)
    if match is None or int(match[3]) < 2:
        return file
    parts = [file.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf") for number in range(1, int(match[3]) + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise FirstTokenError(
            f"{file} is one of {len(parts)} parts of a model, and {some(missing)} {_is(missing)} not beside it; "
            "download the rest into the same folder."
        )
    headers = [read_gguf_header(part, part=True) for part in parts]
    _check(parts, headers)
    digests = "".join(map(file_sha256, parts))
    joined = cache_folder() / "joined" / f"{hashlib.sha256(digests.encode()).hexdigest()[:16]}.gguf"
    if not joined.exists():
        _join(parts, joined)
    return joined


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _check(parts: list[Path], headers: list[GgufHeader]) -> None:
    seen: dict[str, Path] = {}
    for number, (part, header) in enumerate(zip(parts, headers, strict=True)):
        said = header.keys.get("split.count"), header.keys.get("split.no")
        if said != (len(parts), number):
            raise FirstTokenError(
                f"{part} is named part {number + 1} of {len(parts)} and says that it is another; download it again."
            )
        for name in header.tensors:
            if name in seen:
                raise FirstTokenError(f"{part} and {seen[name].name} both hold {name}; they are of different models.")
            seen[name] = part
    promised = headers[0].keys.get("split.tensors.count")
    if promised is not None and promised != len(seen):
        raise FirstTokenError(
            f"The parts of {parts[0]} hold {len(seen)} of {promised} tensors; download them again, all of one model."
        )


def _join(parts: list[Path], target: Path) -> None:
    """Write one file with the keys of the first part and the tensors of all, each as it is."""
    from firsttoken.models.gguf_reading import PlainReader

    readers = [PlainReader(part) for part in parts]
    try:
        with whole_file(target) as partial:
            _write(readers, partial)
    except OSError as error:
        raise FirstTokenError(
            f"The parts of {parts[0]} could not be joined in {target.parent} ({error.strerror or error}); make room "
            "there, or set FIRSTTOKEN_CACHE to another disk."
        ) from error


def _write(readers: list[PlainReader], target: Path) -> None:
    from gguf import GGUFValueType, GGUFWriter

    writer = GGUFWriter(target, readers[0].fields["general.architecture"].contents())
    for field in readers[0].fields.values():
        # The writer has written the architecture; names in capitals are the reader's own.
        if field.name == "general.architecture" or field.name.startswith(("GGUF.", "split.")):
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()
