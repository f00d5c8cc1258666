"""Memory does not grow with the corpus: splitting, looking at and reading long manifests."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from aligncap.data.captioned import open_corpus
from aligncap.data.doctor import Inspection, prepare
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import Seen, Sound, Split, count_leaks, split_manifest
from support import corpora
from support.killer import finish, start

SHORT, LONG = 300, 3000


def long_manifest(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    path = folder / "manifest.jsonl"
    with path.open("w") as lines:
        for number in range(count):
            row = {
                "id": f"u{number}",
                "file": f"u{number}.wav",
                "speaker": f"s{number % 997}",
                "text": f"Sentence {number} of a long corpus, " + "x" * 200,
                "sha256": f"{number:064x}",
            }
            lines.write(json.dumps(row) + "\n")
    return path


def split_one(folder: Path, count: int) -> None:
    manifest = long_manifest(folder, count)
    with Seen(folder) as seen:
        parts = split_manifest(manifest, folder / "parts", Split("speaker"), seen)
        assert sum(parts.values()) == count
        assert count_leaks(seen).speakers == 0


def look_at_one(folder: Path, count: int) -> None:
    manifest = long_manifest(folder, count)
    first = Path(__file__)  # it is there, and its sound is handed in
    clips = (
        Utterance(id=clip.id, path=first, speaker=clip.speaker, text=clip.text)
        for clip in read_manifest(manifest)
    )
    numbers = iter(range(count))

    def sound_of(_: Path) -> Sound:
        return Sound(f"{next(numbers):064x}", 1.0, 16_000)

    with Seen(folder) as seen:
        look = Inspection(
            open_corpus("folder"), seen, sound_of=sound_of, on_fault=lambda fault: None
        )
        assert sum(1 for _ in look.usable(clips)) == count
        assert seen.number("id") == count


def peak_bytes(work: Callable[[Path, int], None], folder: Path, count: int) -> int:
    tracemalloc.start()
    try:
        work(folder / str(count), count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("work", [split_one, look_at_one])
def test_ten_times_as_many_take_no_more(work: Callable[[Path, int], None], tmp_path: Path) -> None:
    work(tmp_path / "warm", 10)  # what is imported and cached once
    short = peak_bytes(work, tmp_path, SHORT)
    long = peak_bytes(work, tmp_path, LONG)
    # A list of what differs would take more than 200 bytes a clip; names of nothing are kept.
    assert long - short < 20 * (LONG - SHORT)


def test_preparing_holds_one_sound_at_a_time(tmp_path: Path) -> None:
    for number in range(120):
        corpora.noise(tmp_path / "src" / f"{number % 4}" / f"{number}.wav", length_s=0.2)

    def prepare_some(folder: Path, count: int) -> None:
        source = tmp_path / f"src{count}"
        source.mkdir()
        for part in range(count // 30):
            (source / str(part)).symlink_to(tmp_path / "src" / str(part))
        report = prepare(open_corpus("folder"), source, folder, split=Split("random"))
        assert report.tally.clips == count

    prepare_some(tmp_path / "warm", 30)
    short = peak_bytes(prepare_some, tmp_path, 60)
    long = peak_bytes(prepare_some, tmp_path, 120)
    # A sound is 12,800 bytes; a tenth of that is room for names and what the allocator likes.
    assert long < short + 60 * 1_280


SPLIT_ONE = """
from pathlib import Path
import sys
from data.test_constant_memory import split_one
split_one(Path(sys.argv[1]), int(sys.argv[2]))
(peak,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
print(peak.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells the peak")
def test_a_process_grows_by_the_cache_of_the_record_and_no_more(tmp_path: Path) -> None:
    """The whole process, SQLite and all that Python does not count with it."""
    peaks_mb = []
    for count in (10_000, 30_000):
        out, _ = finish(start("-c", SPLIT_ONE, tmp_path / str(count), count))
        peaks_mb.append(int(out) / 1024)
    # Held, 20,000 such utterances are 20 MB; what the record keeps in memory is bounded.
    assert peaks_mb[1] - peaks_mb[0] < 12
