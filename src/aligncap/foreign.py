"""Files that somebody else may have made: looked at before a library reads them.

A model folder, recipe or checkpoint may be cut short, an LFS pointer, a device, or made to harm.
`read_text` and `read_json` read regular files of a bounded size; `check_tensors` compares a
safetensors file with its own header; `refuse_code` keeps out folders that bring code. What is not
found out beforehand is raised by the library: within `reading` that becomes one line, too.
"""

import json
import math
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aligncap.errors import AlignCapError, DataError

AGAIN = "save the model again or download it again"
"""The hint of a damaged file of a model folder."""

MOST_JSON_BYTES = 2**27
"""Of a JSON file in a model folder; the largest tokenizers take 40 MB."""

LARGEST_WEIGHT = 65_504.0
"""The greatest number of float16, in which every usual model can be kept."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that git keeps in place of the real one."""

CODE_FILES = ("*.py", "*.pyc", "*.so", "custom_generate")
CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, of bounded length and without control characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "".join(c if c.isprintable() else " " for c in lines[0])[:200]


@contextmanager
def reading(path: Path, *, hint: str, refused: type[AlignCapError] = DataError) -> Iterator[None]:
    """Within it whatever a library raises of a file is one line with the hint."""
    try:
        yield
    except (AlignCapError, ModuleNotFoundError):
        raise
    except BaseException as error:
        # Libraries raise all kinds, bare Exception among them; Rust's panics are not even that.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise refused(f"{path}: is damaged ({reason_of(error)}); {hint}") from error


def check_regular(
    path: Path,
    *,
    hint: str,
    most_bytes: int | None = None,
    refused: type[AlignCapError] = DataError,
) -> None:
    """Refuse what is no regular file, too large, empty, or an LFS pointer."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise refused(f"{path}: is no regular file; {hint}")
        if most_bytes is not None and found.st_size > most_bytes:
            raise refused(f"{path}: has {found.st_size:,} bytes, more than {most_bytes:,}; {hint}")
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise refused(f"{path}: cannot be read ({reason}); {hint}") from error
    if start == POINTER:
        raise refused(f"{path}: is a pointer of Git LFS, not the file; fetch it with git lfs pull")


def read_text(
    path: Path,
    *,
    hint: str,
    most_bytes: int = MOST_JSON_BYTES,
    refused: type[AlignCapError] = DataError,
) -> str:
    """A text file in UTF-8, with or without a byte-order mark."""
    check_regular(path, hint=hint, most_bytes=most_bytes, refused=refused)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(f"{path}: is not UTF-8; save it as UTF-8, or {hint}") from error
    except OSError as error:
        raise refused(f"{path}: cannot be read ({error.strerror}); {hint}") from error


def read_json(
    path: Path,
    *,
    hint: str,
    most_bytes: int = MOST_JSON_BYTES,
    refused: type[AlignCapError] = DataError,
) -> Any:
    """A JSON file; NaN and infinities are no JSON."""
    text = read_text(path, hint=hint, most_bytes=most_bytes, refused=refused)
    with reading(path, hint=hint, refused=refused):
        return json.loads(text, parse_constant=_refuse_constant)


def read_table(path: Path, *, hint: str) -> dict[str, Any]:
    """A JSON file that holds an object."""
    table = read_json(path, hint=hint)
    if not isinstance(table, dict):
        raise DataError(f"{path}: is damaged (no JSON object); {hint}")
    return table


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def refuse_code(folder: Path) -> None:
    """DataError where a model folder brings code or asks for code: none is ever run."""
    hint = "no code of a model is run; use a model of a kind that transformers itself has"
    for pattern in CODE_FILES:
        for found in folder.glob(pattern):
            raise DataError(f"{found}: is code; {hint}")
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith("config.json"):
            table = read_table(path, hint="download the folder again")
            for key in CODE_KEYS:
                if table.get(key):
                    raise DataError(f"{path}: asks for code of its own ({key}); {hint}")


DTYPE_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}

Shapes = dict[str, tuple[int, ...]]


def check_tensors(path: Path, *, hint: str) -> Shapes:
    """The shapes in a safetensors file, by name; DataError where the file has not the size that its
    header says."""
    check_regular(path, hint=hint)
    size = path.stat().st_size
    with reading(path, hint=hint), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, MOST_JSON_BYTES):
            raise DataError(f"{path}: is cut short or no safetensors file; {hint}")
        header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        shapes, spans = Shapes(), []
        for name, one in header.items():
            shape, (start, end) = tuple(map(int, one["shape"])), one["data_offsets"]
            if min(shape, default=0) < 0 or end - start != (
                math.prod(shape) * DTYPE_BYTES[one["dtype"]]
            ):
                raise DataError(f"{path}: {name} does not have the size of its shape; {hint}")
            shapes[name] = shape
            spans.append((start, end))
        ends = 0
        for start, end in sorted(spans):
            if start != ends:
                raise DataError(f"{path}: its tensors do not follow one another; {hint}")
            ends = end
        if ends != size - 8 - length:
            raise DataError(f"{path}: has {size:,} bytes, not what its header says; {hint}")
    return shapes
