"""What a command sees of the outside: streams, environment, and the recordings it is given.

Also what several verbs share: options, records of JSON lines, the progress bar.
"""

import codecs
import csv
import glob
import io
import json
import logging
import os
import re
import sys
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TextIO
from urllib.parse import urlsplit

import typer

from aligncap.errors import (
    AlignCapError,
    AudioError,
    DataError,
    InterruptedRunError,
    RecipeError,
)

if TYPE_CHECKING:
    from aligncap.values import Baseline, Waveform

Language = Literal["en", "zh"]
Listing = Literal["text", "jsonl"]
RecordFormat = Literal["text", "jsonl", "csv"]
RECORD_SUFFIXES = {".jsonl": "jsonl", ".csv": "csv", ".txt": "text", "": "text"}
"""What an output's suffix says of the format of its records."""
CaptionLanguage = Annotated[Language, typer.Option(help="Language of the captions.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here, not to standard output.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
TokenizerWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Weights of the model's speech tokenizer, where they are not in its folder.",
    ),
]

SOME_FAILED = 1
"""Exit code where some input could not be used."""

Record = dict[str, Any]
"""One line of JSON Lines."""


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What steers a terminal, tab and line end apart."""


def for_terminal(text: str) -> str:
    """A text as it may go to a terminal: what would steer it is escaped as JSON does, "\\u001b"."""
    return CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def write_any_text(*streams: Any) -> None:
    """Let streams write, in place of letters that their encoding lacks, the escapes of JSON."""

    def escaped(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
        pairs = zip(units[::2], units[1::2], strict=True)
        return "".join(f"\\u{high:02x}{low:02x}" for high, low in pairs), error.end

    codecs.register_error("aligncap.escaped", escaped)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="aligncap.escaped")


def load_model(name: str, **options: Any) -> Any:
    """The `Captioner` of `aligncap.load`, imported when it is asked for."""
    from aligncap.captioner.captioner import load

    return load(name, **options)


class _ClosedOutput(io.StringIO):
    """Standard output where the caller has closed it."""

    def write(self, _: str, /) -> int:
        """Refuse: what is written would be lost without a word."""
        raise DataError(
            "standard output is closed; open it, or give an output file if there is one"
        )


def _empty() -> TextIO:
    """Stands for standard input and standard error where the caller has closed them."""
    return open(os.devnull, "r+", encoding="utf-8")  # noqa: PTH123


def _file_of(stream: TextIO) -> Path:
    """The file that a stream reads or writes; none that is there where it is in memory."""
    try:
        return Path(f"/dev/fd/{stream.fileno()}")
    except (OSError, io.UnsupportedOperation):
        return Path("/dev/fd/-")


@dataclass(frozen=True)
class Console:
    """Streams, environment and the function that opens models; tests pass their own."""

    stdin: TextIO = field(default_factory=lambda: sys.stdin or _empty())
    stdout: TextIO = field(default_factory=lambda: sys.stdout or _ClosedOutput())
    stderr: TextIO = field(default_factory=lambda: sys.stderr or _empty())
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    load_model: Callable[..., Any] = load_model

    def print(self, *lines: str) -> None:
        """Lines on standard output, written when this returns."""
        print(*map(for_terminal, lines), sep="\n", file=self.stdout, flush=True)

    def print_record(self, record: Record) -> None:
        """A record as one line of JSON."""
        self.print(json.dumps(record, ensure_ascii=False))

    def check_output(
        self, output: Path | None, inputs: Iterable[str | Path], *, overwrite: bool = False
    ) -> None:
        """`check_outputs` for one output file; without one, for standard output as redirected,
        which must not be an input either. The input "-" is standard input."""
        from aligncap.storage import check_outputs

        if output is not None and output.is_dir():
            raise DataError(f"{output}: is a folder; name a file")
        sources = [_file_of(self.stdin) if str(one) == "-" else Path(one) for one in inputs]
        redirected = _file_of(self.stdout)
        check_outputs([output or redirected], sources, overwrite=overwrite or output is None)

    def log(self, message: str) -> None:
        """One line on standard error."""
        line = for_terminal(" ".join(message.split("\n")))
        print("aligncap:", line, file=self.stderr, flush=True)

    def lines_of_stdin(self) -> Iterator[str]:
        """The lines of standard input that hold something; DataError where they are not UTF-8."""
        from aligncap.storage import decoded

        for number, line in enumerate(self.stdin.buffer, start=1):
            if text := decoded(line, f"stdin:{number}", "text").strip():
                yield text

    def proxy_for(self, url: str | None) -> str | None:
        """The proxy that the environment names for a URL; none for this machine itself, nor for
        the hosts, domains and networks of no_proxy."""
        from aligncap.endpoints import host_of

        host = host_of(url)
        if not url or host in ("", "localhost", "127.0.0.1", "::1"):
            return None

        def named(name: str) -> str:
            return self.environment.get(name) or self.environment.get(name.upper()) or ""

        parts = urlsplit(url)
        without = (one.strip().lower() for one in named("no_proxy").split(","))
        if any(_is_of(one, host, parts.port) for one in without if one):
            return None
        proxy = named(f"{parts.scheme}_proxy") or None
        return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _is_of(name: str, host: str, port: int | None) -> bool:
    """Whether an entry of no_proxy names a host: "*", a domain, a host with its port, a network."""
    from ipaddress import ip_address, ip_network

    with suppress(ValueError):  # no network, or no address
        return ip_address(host) in ip_network(name, strict=False)
    domain = name.removeprefix("*").removeprefix(".")
    return name == "*" or f"{host}:{port}" == name or f".{host}".endswith(f".{domain}")


def format_of(output: Path | None, asked: str | None, known: Mapping[str, str]) -> str:
    """The format asked for, or what the output's suffix says; the one of "" where it has none.

    `known` are formats by suffix. RecipeError for a suffix that is none of them.
    """
    suffix = output.suffix.lower() if output and not asked else ""
    if suffix not in known:
        suffixes = ", ".join(filter(None, known))
        choice = "; or give --format" if len(set(known.values())) > 1 else ""
        raise RecipeError(f"{output}: nothing is written as {suffix}; known: {suffixes}{choice}")
    return asked or known[suffix]


class WarningHandler(logging.Handler):
    """Writes each warning of the package as a line on standard error; of what is read twice, as for
    a baseline, once."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._told: deque[str] = deque(maxlen=100)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one warning, if it is not among the last."""
        told = record.getMessage()
        if told not in self._told:
            self._told.append(told)
            self._console.log(told)


class Progress:
    """A progress bar on standard error, shown only if that is a terminal and results do not go to
    a terminal too.

    With `kept`, Ctrl-C within raises an InterruptedRunError that says what is kept.
    """

    def __init__(
        self,
        console: Console,
        description: str,
        *,
        results_on_stdout: bool = False,
        kept: Callable[[], str] | None = None,
    ) -> None:
        self._kept, self._total = kept, 0
        self.shown = console.stderr.isatty()
        if results_on_stdout and console.stdout.isatty():
            self.shown = False
        if self.shown:
            from rich import console as rich_console
            from rich import progress

            self._bar = progress.Progress(
                progress.TextColumn(description),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[told]}"),
                console=rich_console.Console(file=console.stderr),
                transient=True,
            )
            self._task = self._bar.add_task(description, total=None, told="")

    def __enter__(self) -> Self:
        if self.shown:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shown:
            self._bar.stop()
        if isinstance(error, KeyboardInterrupt) and self._kept is not None:
            message = f"stopped; {self._kept()}; the same command goes on"
            raise InterruptedRunError(message) from error

    def add_total(self, count: int) -> None:
        """So many more are to come; without a call the bar has no end."""
        self._total += count
        if self.shown:
            self._bar.update(self._task, total=self._total)

    def describe(self, told: str) -> None:
        """What else is shown beside the bar."""
        if self.shown:
            self._bar.update(self._task, told=told)

    def advance(self) -> None:
        """One more is done."""
        if self.shown:
            self._bar.advance(self._task)


FOUND = {
    *("file", "captions", "caption", "clues", "language", "emotion", "arousal", "valence"),
    *("gender", "pitch", "loudness", "pace", "confidence", "certainty", "second_emotion"),
    *("vocalization", "unfamiliar", "model", "baseline", "part_s", "candidates"),
    *("error", "signature", "duration", "duration_s", "speech_s", "facts"),
    *("start_s", "end_s", "kind", "channel", "words", "pitch_hz", "loudness_lufs"),
    "syllables_per_s",
}
"""Names that records have for what verbs find: columns of a manifest that are called so come
through as `manifest_NAME`."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording: its name, and where its sound is or why there is none."""

    file: str
    """As typed or found; the `file` of a record."""
    audio: "Path | Waveform | AlignCapError"
    columns: Record = field(default_factory=dict)
    """What else a manifest says of it: its id, speaker and so on."""
    baseline: "Baseline | None" = None
    """How its speaker usually sounds, where a verb was asked to go by that."""

    def described(self, record: Record) -> Record:
        """A record of the recording with the other columns of its manifest."""
        kept = {
            f"manifest_{key}" if key in FOUND else key: value for key, value in self.columns.items()
        }
        return {"file": self.file, **kept, **record}


def files_of(recordings: Iterable[Recording]) -> list[Path]:
    """The files that recordings are read from."""
    return [one.audio for one in recordings if isinstance(one.audio, Path)]


def other_columns(recordings: Iterable[Recording], known: Collection[str]) -> list[str]:
    """The columns of csv that the recordings' manifests have besides `known` ones."""
    named = dict.fromkeys(name for one in recordings for name in one.described({}))
    return [name for name in named if name not in {"file", *known}]


def expanded(paths: Iterable[str]) -> list[str]:
    """The paths typed, quoted globs replaced by what matches them now: an output that is made
    later is none of them. A glob that nothing matches stays."""
    found: list[str] = []
    for path in paths:
        if glob.has_magic(path) and not Path(path).exists():
            names = sorted(glob.iglob(path, recursive=True))  # noqa: PTH207  keeps what was typed
            kept = [name for name in names if "**" not in path or not Path(name).is_dir()]
            found += kept or [path]
        else:
            found.append(path)
    return found


def find_recordings(paths: Iterable[str], console: Console) -> Iterator[Recording]:
    """The recordings that `paths` name (files, folders, globs, manifests, - for standard input),
    in order, each once; a folder is searched when it is reached."""
    seen: set[tuple[str, str]] = set()
    for path in expanded(paths):
        for found in _of_stdin(console) if path == "-" else _of_path(path):
            one = (found.file, str(found.columns.get("id")))
            if one not in seen:
                seen.add(one)
                yield found


def _of_path(path: str) -> Iterator[Recording]:
    place = Path(path)
    if place.is_dir():
        yield from _of_folder(path)
    elif place.suffix.lower() == ".jsonl" and place.is_file():
        yield from _of_manifest(place)
    elif glob.has_magic(path) and not place.exists():
        yield Recording(path, AudioError(f"{path}: no file matches"))
    else:
        yield Recording(path, place)


def _of_folder(folder: str) -> Iterator[Recording]:
    """Every sound file below a folder, sorted; anything else in it is passed over. Links are
    followed, into each folder once: one that leads back up would have no end."""
    from aligncap.audio.containers import AUDIO_SUFFIXES, MEDIA_SUFFIXES

    found = 0
    searched: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in searched:
            folders.clear()
            continue
        searched.add(real)
        # A folder itself comes before a link to it.
        folders.sort(key=lambda name: (os.path.islink(f"{place}/{name}"), name))  # noqa: PTH114
        sounds = [
            name
            for name in (*folders, *files)
            if not name.startswith(".")
            and Path(name).suffix.lower() in AUDIO_SUFFIXES | MEDIA_SUFFIXES
        ]
        # A folder called x.wav is not searched: `load` says what is wrong with it.
        folders[:] = [name for name in folders if name not in sounds]
        for name in sorted(sounds):
            found += 1
            file = os.path.join(place, name)  # noqa: PTH118  Path would drop a leading ./
            yield Recording(file, Path(file))
    if not found:
        yield Recording(folder, AudioError(f"{folder}: no sound file in this folder"))


def _of_manifest(manifest: Path) -> Iterator[Recording]:
    """The recordings of a manifest, each with its other columns; a broken line is an error in its
    place."""
    from aligncap.storage import decoded

    with manifest.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{manifest}:{number}"
            try:
                row = json.loads(decoded(line, place, "manifest"))
            except DataError as error:
                yield Recording(place, error)
                continue
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits, deep nesting
                reason = getattr(error, "msg", "that can be read")
                wrong = f"{place}: not JSON ({reason}); mend or remove the line"
                yield Recording(place, DataError(wrong))
                continue
            name = row.get("file") if isinstance(row, dict) else None
            if isinstance(name, str) and name:
                file = manifest.parent / name
                yield Recording(str(file), file, {key: row[key] for key in row if key != "file"})
            else:
                wrong = f'{place}: no "file"; each line is {{"file": "a.wav", …}}'
                yield Recording(place, DataError(wrong))


SOUND_MAGIC = (
    *(b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"fLaC", b"OggS", b"FORM", b"caff", b".snd"),
    *(b"NIST_1A", b"ID3", b"\xff\xfa", b"\xff\xfb", b"\xff\xf2", b"\xff\xf3", b"\xff\xe3"),
)
"""How a sound file begins; on standard input, it tells audio from a list of paths."""


def _of_stdin(console: Console) -> Iterator[Recording]:
    """Paths, one a line, or the bytes of one sound file."""
    data = console.stdin.buffer.read()
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):  # a list of paths as PowerShell writes it
        data = data.decode("utf-16", "replace").encode()
    if data.startswith(SOUND_MAGIC) or b"\0" in data[:64]:
        yield _of_bytes(data)
        return
    lines = data.removeprefix(BOM_UTF8).splitlines()
    paths = expanded(os.fsdecode(line) for line in lines if line)
    if not paths:
        nothing = "stdin: neither a path nor sound on standard input"
        yield Recording("stdin", AudioError(nothing))
    for path in paths:
        yield from _of_path(path)


def _of_bytes(data: bytes) -> Recording:
    from aligncap.audio import load_bytes

    try:
        return Recording("stdin", load_bytes(data, "stdin"))
    except AudioError as error:
        return Recording("stdin", error)


def error_record(recording: Recording, error: Exception) -> Record:
    """The record of a recording that could not be used, and why."""
    message, file = " ".join(str(error).split("\n")), recording.file
    named = file in message or str(Path(file)) in message  # ./a.wav is a.wav in messages
    text = message if named else f"{file}: {message}"
    return recording.described({"file": file, "error": text})


def csv_line(cells: Iterable[object]) -> str:
    """Cells as a line of csv; None is empty, lists and tables are JSON."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(
        json.dumps(one, ensure_ascii=False) if isinstance(one, dict | list) else one
        for one in cells
    )
    return line.getvalue()


def display_width(text: str) -> int:
    """How many columns of a terminal a text takes; a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def aligned(rows: Iterable[Iterable[str]]) -> list[str]:
    """Rows of cells as lines: two spaces between columns, each but the last padded to its widest
    cell."""
    table = [list(row) for row in rows]
    widths = [max(map(display_width, column)) for column in zip(*table, strict=True)][:-1]
    return [
        "".join(
            f"{cell}{' ' * (width - display_width(cell))}  "
            for cell, width in zip(row, widths, strict=False)
        )
        + row[-1]
        for row in table
    ]


def with_baselines(
    recordings: Iterable[Recording],
    captioner: Any,
    console: Console,
    *,
    files: Sequence[str],
    usual: Sequence[Recording],
    per: str | None,
) -> tuple[Iterable[Recording], dict[str, str]]:
    """The recordings, each with the baseline that it is relative to, and what a signature says of
    that. `usual` are those of one speaker, found as `files`; `per` is how the speakers of the
    recordings are told."""
    if files and per:
        raise RecipeError("--baseline is of one speaker, --per of each; give one of them")
    if files:
        for one in usual:
            if isinstance(one.audio, AlignCapError):
                raise one.audio
        found = captioner.baseline([one.audio for one in usual])
        baseline = replace(found, source=", ".join(files))
        numbers = {key: value for key, value in baseline.to_dict().items() if key != "source"}
        vector = baseline.vector.tolist() if baseline.vector is not None else None
        from aligncap.storage import canonical_json, hash_of

        signature = {"baseline": hash_of(canonical_json([numbers, vector]))[:12]}
        return (replace(one, baseline=baseline) for one in recordings), signature
    if per in (None, "file"):
        return recordings, {}
    recordings = list(recordings)
    speakers = [_speaker_of(one, str(per)) for one in recordings]
    if not any(speakers):
        raise RecipeError(
            f"--per {per}: no recording has a {per}; give a manifest (.jsonl) with a column {per}"
        )
    with Progress(console, "measuring", kept=lambda: "nothing is captioned yet") as bar:
        bar.add_total(len(recordings))

        def heard() -> "Iterator[Path | Waveform | AlignCapError]":
            for one in recordings:
                yield one.audio
                bar.advance()

        usual_voices = captioner.baselines(heard(), speakers, kind=per)
    paired = zip(recordings, usual_voices, strict=True)
    return [replace(one, baseline=usual) for one, usual in paired], {"per": str(per)}


def _speaker_of(recording: Recording, per: str) -> str | None:
    """What tells the speaker of a recording: a column of its manifest, or its folder."""
    if per == "folder":
        return str(recording.audio.parent) if isinstance(recording.audio, Path) else None
    speaker = recording.columns.get("speaker")
    return None if speaker in (None, "") else str(speaker)
