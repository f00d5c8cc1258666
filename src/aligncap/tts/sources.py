"""Corpora as rows, shard by shard: folders, manifests, parquet, datasets saved by Hugging Face's
library, and tars of webdataset.

A shard is a stretch of a corpus that one process annotates; which rows it has depends on the
corpus and `shard_rows` only. Arrow's files are read with pyarrow, tars with Python itself.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from aligncap.data.layouts import SOUNDS, sound_files
from aligncap.data.manifest import read_csv, read_each_row
from aligncap.errors import DataError
from aligncap.foreign import reading
from aligncap.storage import hash_of
from aligncap.tts.annotator import AUDIO_NAMES
from aligncap.tts.measures import Row

HINT = "fetch or write the file again"
DEFAULT_SPLIT = "train"
PARTS = 256
"""Rows of an Arrow file that are held at once."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of a corpus: what its rows are read by, in whatever process."""

    split: str
    read: Callable[[], Iterator[Row]]
    count: int | None
    """How many rows; None where only reading tells."""
    described: str
    """What it is made of, so that a corpus that has changed is noticed."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus in shards."""

    path: Path
    shards: tuple[Shard, ...]
    schema: Any = None
    """pyarrow's, of a corpus in Arrow's files; None where the rows show it."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """What Hugging Face's library notes of its columns."""


def open_corpus(path: Path, shard_rows: int, audio: str | None = None) -> Corpus:
    """A corpus by what is there: a folder of sounds or of Arrow's files or tars, a manifest
    (.jsonl, .csv), a parquet file, a tar. `audio` is the column of its recordings, if it is not
    called as usual.

    Raises DataError where there is nothing that can be annotated.
    """
    names = AUDIO_NAMES if audio is None else (audio,)
    if path.is_dir():
        return _of_folder(path, shard_rows, names)
    if not path.exists():
        raise DataError(f"{path}: does not exist; give a folder, manifest, parquet file or tar")
    kind = path.suffix.lower()
    if kind in (".jsonl", ".csv"):
        return _of_rows(path, _manifest_rows(path, names), shard_rows)
    if kind == ".parquet":
        return _of_arrow(path, [(_split_of(path, path.parent), path)], shard_rows, names)
    if path.name.endswith((".tar", ".tar.gz", ".tgz")):
        return _of_tars(path, [path])
    if kind == ".sqlite":
        raise DataError(
            f"{path}: is no corpus; people judge candidates by aligncap prefer annotate"
        )
    raise DataError(
        f"{path}: is no corpus; give a folder, a manifest (.jsonl, .csv), a .parquet file or a .tar"
    )


def _of_folder(folder: Path, shard_rows: int, names: Sequence[str]) -> Corpus:
    """The first kind of corpus that a folder holds."""
    if saved := _saved_files(folder):
        return _of_arrow(folder, saved, shard_rows, names)
    if files := _visible(folder, "*.parquet"):
        split = [(_split_of(file, folder), file) for file in files]
        return _of_arrow(folder, split, shard_rows, names)
    tars = [one for end in ("*.tar", "*.tar.gz", "*.tgz") for one in _visible(folder, end)]
    if tars:
        return _of_tars(folder, sorted(tars))
    for name in ("metadata.jsonl", "metadata.csv", "manifest.jsonl"):
        if (folder / name).is_file():
            return _of_rows(folder, _manifest_rows(folder / name, names), shard_rows)
    files = list(sound_files(folder))
    if not files:
        raise DataError(f"{folder}: has no sound, parquet, arrow or tar file; give a corpus")
    return _of_rows(folder, (_file_row(file, folder) for file in files), shard_rows)


def _visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob(pattern)
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _file_row(file: Path, folder: Path) -> Row:
    place = file.relative_to(folder)
    return {"id": place.with_suffix("").as_posix(), "audio": str(file)}


def _of_rows(path: Path, rows: Iterable[Row], shard_rows: int) -> Corpus:
    held = tuple(rows)
    if not held:
        raise DataError(f"{path}: has no row; give a corpus")
    # Of one size, so that processes end together.
    count = -(-len(held) // shard_rows)
    places = [number * len(held) // count for number in range(count + 1)]
    parts = [held[start:end] for start, end in pairwise(places)]
    shards = [
        Shard(DEFAULT_SPLIT, partial(iter, part), len(part), hash_of(repr(part))) for part in parts
    ]
    return Corpus(path, tuple(shards))


def _manifest_rows(manifest: Path, names: Sequence[str]) -> Iterator[Row]:
    """The rows of a manifest; `audio` is the place of the recording, and an id and the name that
    others give a speaker are there too."""
    usual = "file" if "file" in names else names[0]
    read = read_csv if manifest.suffix.lower() == ".csv" else read_each_row
    for place, told in read(manifest, what="manifest"):
        if isinstance(told, DataError):
            yield {"id": place, "audio": told}
            continue
        if read is read_csv and not told.keys() & set(names):
            heading = ", ".join(told)[:80]
            raise DataError(
                f"{manifest}: has no column {usual!r} (its first line is {heading!r}); begin it "
                "with the names of its columns, a comma between them"
            )
        name = next((told[one] for one in names if isinstance(told.get(one), str)), None)
        audio = (
            DataError(f"{place}: names no recording; write it under {usual!r}")
            if not name
            else str(manifest.parent / name)
        )
        yield _named({"id": Path(name or place).stem, **told, "audio": audio})


def _named(row: Row) -> Row:
    """A row with its speaker under the name that dataspeech has for it."""
    if row.get("speaker") is not None:
        row.setdefault("speaker_id", row["speaker"])
    return row


SPLIT_OF_NAME = re.compile(r"^([A-Za-z0-9_.]+?)-\d{5}(-of-\d{5})?\.(parquet|arrow)$")
SPLIT_NAMES = {"train", "test", "validation", "valid", "dev"}


def _split_of(file: Path, folder: Path) -> str:
    """The split that a file belongs to, by its name or its folder's."""
    if found := SPLIT_OF_NAME.match(file.name):
        return found.group(1)
    names = [file.stem, *(part.name for part in file.relative_to(folder).parents)]
    return next((name for name in names if name in SPLIT_NAMES), DEFAULT_SPLIT)


def _saved_files(folder: Path) -> list[tuple[str, Path]]:
    """Splits and files of a dataset that `save_to_disk` wrote; none where it is not one."""
    found: list[tuple[str, Path]] = []
    for place in (folder, *sorted(one for one in folder.iterdir() if one.is_dir())):
        state = place / "state.json"
        if not state.is_file():
            continue
        with reading(state, hint=HINT):
            files = json.loads(state.read_text("utf-8"))["_data_files"]
            split = DEFAULT_SPLIT if place == folder else place.name
            found += [(split, place / one["filename"]) for one in files]
    return found


def _of_arrow(
    path: Path, files: Iterable[tuple[str, Path]], shard_rows: int, names: Sequence[str]
) -> Corpus:
    import pyarrow as pa

    shards: list[Shard] = []
    schemas = []
    for split, file in files:
        with reading(file, hint=HINT):
            schema, groups = _groups_of(file)
        schemas.append(schema)
        at = 0
        for size in _sizes(groups, shard_rows):
            read = partial(_arrow_rows, file, at, at + size, _folder_of(path), names)
            count = sum(groups[at : at + size])
            shards.append(Shard(split, read, count, f"{_stamp(file)}:{at}:{count}"))
            at += size
    if not shards:
        raise DataError(f"{path}: has no row; give a corpus")
    noted = (schemas[0].metadata or {}).get(b"huggingface", b"{}")
    with reading(path, hint="give files of one dataset, whose columns agree"):
        features = json.loads(noted).get("info", {}).get("features") or {}
        schema = pa.unify_schemas([one.remove_metadata() for one in schemas])
    return Corpus(path, tuple(sorted(shards, key=lambda one: one.split)), schema, features)


def _stamp(file: Path) -> str:
    """Name, size and time of a file: what tells of one that is too large to be read for it."""
    found = file.stat()
    return f"{file.name}:{found.st_size}:{found.st_mtime_ns}"


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _sizes(groups: list[int], shard_rows: int) -> Iterator[int]:
    """How many groups each shard has: as many as make `shard_rows` rows."""
    size = rows = 0
    for count in groups:
        size, rows = size + 1, rows + count
        if rows >= shard_rows:
            yield size
            size = rows = 0
    if rows:
        yield size


def _groups_of(file: Path) -> tuple[Any, list[int]]:
    """The schema of an Arrow file and the rows of each of its groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as opened:
            meta = opened.metadata
            rows = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
            return opened.schema_arrow, rows
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
        return stream.schema, [batch.num_rows for batch in stream]


def _arrow_rows(
    file: Path, start: int, stop: int, folder: Path, names: Sequence[str]
) -> Iterator[Row]:
    """The rows of some groups of an Arrow file; a path of sound is relative to the corpus."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(file, hint=HINT):
        if file.suffix == ".parquet":
            with pq.ParquetFile(file) as opened:
                batches = opened.iter_batches(PARTS, row_groups=range(start, stop))
                yield from _rows_of(batches, folder, names)
        else:
            with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
                groups = islice(stream, start, stop)
                yield from _rows_of(groups, folder, names)


def _rows_of(batches: Iterable[Any], folder: Path, names: Sequence[str]) -> Iterator[Row]:
    for batch in batches:
        for start in range(0, batch.num_rows, PARTS):
            for row in batch.slice(start, PARTS).to_pylist():
                yield _placed(row, folder, names)


def _placed(row: Row, folder: Path, names: Sequence[str]) -> Row:
    """A row whose recording can be opened from anywhere: a path to it may be relative to the
    corpus. Where a text names it, the text stays and the recording is the column `audio`."""
    name = next((one for one in names if row.get(one) is not None), "")
    match row.get(name):
        case str(place):
            there = (folder / place).is_file()
            return {**row, "audio": str(folder / place) if there else place}
        case {"path": str(place), **more} if place and more.get("bytes") is None:
            return {**row, name: {**more, "path": str(folder / place)}}
    return row


def _of_tars(path: Path, tars: Iterable[Path]) -> Corpus:
    shards = [
        Shard(
            _split_of(tar, _folder_of(path)),
            partial(_tar_rows, tar),
            None,
            _stamp(tar),
        )
        for tar in tars
    ]
    return Corpus(path, tuple(sorted(shards, key=lambda one: one.split)))


def _tar_rows(tar: Path) -> Iterator[Row]:
    """The samples of a tar of webdataset: files in succession that are called alike up to the
    first dot. What is cut short becomes a last row with its error."""
    key, parts = "", dict[str, bytes]()
    try:
        with tarfile.open(tar, "r|*") as opened:
            for member in opened:
                folder, _, name = member.name.rpartition("/")
                if not member.isfile() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                this = f"{folder}/{stem}".lstrip("/")
                if this != key and parts:
                    yield _sample(tar, key, parts)
                    parts = {}
                extracted = opened.extractfile(member)
                assert extracted is not None
                key, parts[ending] = this, extracted.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        if parts:
            yield _sample(tar, key, parts)
        broken = DataError(f"{tar}: is cut short or damaged after {key or 'nothing'} ({error})")
        yield {"id": f"{tar.name}:end", "__key__": key, "audio": broken}
        return
    if parts:
        yield _sample(tar, key, parts)


def _sample(tar: Path, key: str, parts: Mapping[str, bytes]) -> Row:
    row: Row = {"id": key, "__key__": key}
    audio: Any = None
    for ending, data in parts.items():
        kind = ending.rpartition(".")[2].lower()
        if f".{kind}" in SOUNDS:
            audio = {"bytes": data, "path": f"{key}.{ending}"}
        else:
            row |= _field(ending, kind, data)
    missing = DataError(f"{tar}: {key} has no sound beside {', '.join(parts)}")
    return _named({**row, "audio": audio or missing})


def _field(ending: str, kind: str, data: bytes) -> Row:
    """A file of a sample as columns; what cannot be read stays as it is."""
    try:
        if kind == "json":
            told = json.loads(data)
            return told if isinstance(told, dict) else {ending: told}
        if kind in ("txt", "text", "transcript"):
            return {"text" if kind == "txt" else ending: data.decode().strip()}
        if kind in ("cls", "id", "index"):
            return {ending: data.decode().strip()}
    except ValueError:
        pass
    return {ending: data}
