"""Facts of corpora: what is kept comes back, and what was torn is measured again."""

import json
import tracemalloc
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import soundfile

from aligncap.audio import load
from aligncap.data import manifest
from aligncap.data.manifest import measure_all, read_facts, write_facts
from aligncap.prosody import measure
from aligncap.values import RATE_HZ, Fact, Facts


def facts_of(number: float) -> Facts:
    named = {
        "pace_syllables_per_s": Fact("pace_syllables_per_s", number, "syllables/s", 0.75),
        "jitter": Fact("jitter", None, "%", 0.0, "too few voiced frames – 12"),
    }
    return Facts(number + 1, number, MappingProxyType(named))


class OneProcess:
    """In place of a pool of processes: the same work, where a test can look on."""

    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> "OneProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function, items, chunksize):
        return map(function, items)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were measured; a file's facts are its name."""
    asked: list[Path] = []

    def line_of(path: Path) -> str:
        asked.append(path)
        return write_facts(facts_of(float(path.stem)))

    monkeypatch.setattr(manifest, "ProcessPoolExecutor", OneProcess)
    monkeypatch.setattr(manifest, "_line_of", line_of)
    return asked


def test_facts_come_back_as_they_were():
    assert read_facts(write_facts(facts_of(2.5))) == facts_of(2.5)
    assert "\n" not in write_facts(facts_of(2.5))


def test_facts_are_in_the_order_asked_for_and_measured_once(tmp_path, measured):
    cache, paths = tmp_path / "new" / "facts.jsonl", [Path(f"{n}.wav") for n in (3, 1, 2)]
    assert list(measure_all(cache, paths)) == [facts_of(n) for n in (3.0, 1.0, 2.0)]
    assert measured == paths
    assert list(measure_all(cache, paths[::-1])) == [facts_of(n) for n in (2.0, 1.0, 3.0)]
    assert measured == paths


@pytest.mark.parametrize("kept", [1, 20, 60])
def test_a_line_torn_off_is_measured_again_and_not_written_onto(tmp_path, measured, kept):
    cache, paths = tmp_path / "facts.jsonl", [Path(f"{n}.wav") for n in (1, 2, 3)]
    measure_all(cache, paths[:2])
    whole = cache.read_bytes()
    second = whole.index(b"\n") + 1
    cache.write_bytes(whole[: second + kept])
    measured.clear()
    for _ in range(2):  # the second time, everything is read from what the first one wrote
        assert list(measure_all(cache, paths)) == [facts_of(n) for n in (1.0, 2.0, 3.0)]
    assert measured == paths[1:]
    lines = cache.read_text("utf-8").splitlines()
    assert [line.partition("\t")[0] for line in lines] == [str(path) for path in paths]
    assert all(json.loads(line.partition("\t")[2]) for line in lines)


def test_a_file_is_measured_as_the_captioner_measures_it(tmp_path):
    time_s = np.arange(RATE_HZ) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 150 * n * time_s) / n for n in range(1, 9))
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.2 * sound, RATE_HZ)
    (found,) = measure_all(tmp_path / "facts.jsonl", [path])
    expected = measure(load(path))
    assert list(found) == list(expected)


def test_facts_are_read_when_they_are_asked_for(tmp_path, measured):
    paths = [Path(f"{n}.wav") for n in range(400)]
    found = measure_all(tmp_path / "facts.jsonl", paths)
    assert (len(found), found[7], found[-1]) == (400, facts_of(7.0), facts_of(399.0))
    assert list(found[3:5]) == [facts_of(3.0), facts_of(4.0)]
    measure_all(tmp_path / "facts.jsonl", [Path("1000.wav")])
    assert found[399] == facts_of(399.0)  # more lines behind it change nothing
    tracemalloc.start()
    for one in found:
        assert one.duration_s
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 * 200  # a file's facts take more than a kilobyte
