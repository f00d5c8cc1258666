"""Facts of corpora: what is kept comes back, and what was torn is measured again."""

import json
import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

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


def files(*numbers: int) -> list[Path]:
    return [Path(f"{n}.wav") for n in numbers]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were measured; a file's facts are its name. In place of a pool of processes the
    same work is done in this one."""
    asked: list[Path] = []

    def line_of(path: Path) -> str:
        asked.append(path)
        return write_facts(facts_of(float(path.stem)))

    pool = SimpleNamespace(map=lambda function, items, chunksize: map(function, items))
    monkeypatch.setattr(manifest, "ProcessPoolExecutor", lambda _: nullcontext(pool))
    monkeypatch.setattr(manifest, "_line_of", line_of)
    return asked


def test_facts_come_back_in_the_order_asked_for_and_are_measured_once(tmp_path, measured):
    assert read_facts(write_facts(facts_of(2.5))) == facts_of(2.5)
    cache, paths = tmp_path / "new" / "facts.jsonl", files(3, 1, 2)
    assert list(measure_all(cache, paths)) == [facts_of(n) for n in (3.0, 1.0, 2.0)]
    assert list(measure_all(cache, paths[::-1])) == [facts_of(n) for n in (2.0, 1.0, 3.0)]
    assert measured == paths


@pytest.mark.parametrize("kept", [1, 20, 60])
def test_a_line_torn_off_is_measured_again_and_not_written_onto(tmp_path, measured, kept):
    cache, paths = tmp_path / "facts.jsonl", files(1, 2, 3)
    measure_all(cache, paths[:2])
    whole = cache.read_bytes()
    cache.write_bytes(whole[: whole.index(b"\n") + 1 + kept])
    measured.clear()
    for _ in range(2):  # the second time, everything is read from what the first one wrote
        assert list(measure_all(cache, paths)) == [facts_of(n) for n in (1.0, 2.0, 3.0)]
    assert measured == paths[1:]
    lines = [line.partition("\t") for line in cache.read_text("utf-8").splitlines()]
    assert [path for path, _, _ in lines] == [str(path) for path in paths]
    assert all(json.loads(facts) for _, _, facts in lines)


def test_a_file_is_measured_as_the_captioner_measures_it(tmp_path):
    time_s = np.arange(RATE_HZ) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 150 * n * time_s) / n for n in range(1, 9))
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.2 * sound, RATE_HZ)
    (found,) = measure_all(tmp_path / "facts.jsonl", [path])
    assert list(found) == list(measure(load(path)))


def test_facts_are_read_when_they_are_asked_for(tmp_path, measured):
    found = measure_all(tmp_path / "facts.jsonl", files(*range(400)))
    assert (len(found), found[7], found[-1]) == (400, facts_of(7.0), facts_of(399.0))
    assert list(found[3:5]) == [facts_of(3.0), facts_of(4.0)]
    measure_all(tmp_path / "facts.jsonl", files(1000))
    assert found[399] == facts_of(399.0)  # more lines behind it change nothing
    tracemalloc.start()
    assert all(one.duration_s for one in found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 * 200  # a file's facts take more than a kilobyte
