"""Memory does not grow with the corpus: splitting, looking at and reading long manifests."""

import json
import tracemalloc
from pathlib import Path

import pytest

from aligncap.data.captioned import open_corpus
from aligncap.data.doctor import Inspection, prepare
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import Seen, Sound, Split, count_leaks, split_manifest
from support import corpora
from support.killer import finish, start


def long_manifest(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    with (folder / "manifest.jsonl").open("w") as lines:
        for number in range(count):
            row = {"id": f"u{number}", "file": f"u{number}.wav", "speaker": f"s{number % 997}"}
            row["text"] = f"Sentence {number} of a long corpus, " + "x" * 200
            lines.write(json.dumps({**row, "sha256": f"{number:064x}"}) + "\n")
    return folder / "manifest.jsonl"


def read_one(folder: Path, count: int) -> None:
    assert sum(1 for _ in read_manifest(long_manifest(folder, count))) == count


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
    sounds = (Sound(f"{number:064x}", 1.0, 16_000) for number in range(count))
    how = {"sound_of": lambda path: next(sounds), "on_fault": lambda fault: None}
    with Seen(folder) as seen:
        look = Inspection(open_corpus("folder"), seen, **how)
        assert sum(1 for _ in look.usable(clips)) == count
        assert seen.number("id") == count


def prepare_one(folder: Path, count: int) -> None:
    for number in range(count):
        corpora.noise(folder / "src" / f"{number}.wav", length_s=0.2)
    report = prepare(open_corpus("folder"), folder / "src", folder / "out", split=Split("random"))
    assert report.tally.clips == count


@pytest.mark.parametrize(
    ("work", "short", "long", "clip_bytes"),
    [
        # A list of what differs would take more than 200 bytes a clip; buffers fill unevenly.
        (read_one, 300, 3000, 20),
        (split_one, 300, 3000, 60),
        (look_at_one, 300, 3000, 60),
        # A sound is 12,800 bytes; a tenth of that is room for names and what the allocator likes.
        (prepare_one, 60, 120, 1_280),
    ],
)
def test_more_clips_take_no_more_memory(work, short, long, clip_bytes, tmp_path) -> None:
    def peak_bytes(count: int, again: str = "") -> int:
        tracemalloc.start()
        try:
            work(tmp_path / f"{count}{again}", count)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    work(tmp_path / "warm", 10)  # what is imported and cached once
    few = peak_bytes(short)
    # Python's own table of names doubles now and then, by 2 MB, but not twice in a row.
    many = min(peak_bytes(long), peak_bytes(long, again="b"))
    assert many - few < clip_bytes * (long - short)


SPLIT_ONE = """
from pathlib import Path
import sys
from data.test_constant_memory import split_one
split_one(Path(sys.argv[1]), int(sys.argv[2]))
(peak,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
print(peak.split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells the peak")
def test_a_process_grows_by_the_cache_of_the_record_and_no_more(tmp_path: Path) -> None:
    """The whole process, SQLite and all that Python does not count with it."""
    peaks_mb = []
    for count in (10_000, 30_000):
        out, _ = finish(start("-c", SPLIT_ONE, tmp_path / str(count), count))
        peaks_mb.append(int(out) / 1024)
    # Held, 20,000 such utterances are 20 MB; what the record keeps in memory is bounded.
    assert peaks_mb[1] - peaks_mb[0] < 12
