"""Witnesses from outside: shares counted by hand, a made tone before Praat and pyloudnorm, and what
the files that are read may hold."""

from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.experiments import witnesses
from aligncap.experiments.witnesses import Heard, Outside, against_people
from aligncap.storage import hash_of_file
from aligncap.values import Fact, Facts, Verdict
from support.signals import harmonics, waveform

HIGH, LOW = frozenset({("pitch", "high", False)}), frozenset({("pitch", "low", False)})
NONE: frozenset[tuple[str, str, bool]] = frozenset()


def test_people_are_compared_with_their_own_clips_and_with_others() -> None:
    # Nobody remarks on the last clip; of the third nothing is claimed.
    found = against_people([HIGH, HIGH, LOW, LOW, NONE], [HIGH, LOW, NONE, LOW, HIGH])
    assert found is not None
    # Own: the second is contradicted. Others: high by 2 lows, the first low by the first's high,
    # the last low by 2 highs, each against 3 others.
    assert (found.clips, found.claims) == (4, 3)
    assert found.contradicted == pytest.approx(1 / 3)
    assert found.shuffled == pytest.approx((2 + 1 + 2) / 9)
    low, high = found.ratio_interval
    assert low <= found.contradicted / found.shuffled <= high
    assert against_people([NONE, HIGH], [HIGH, NONE]) is None


def heard(text: str, **values: float) -> Heard:
    facts = {name: Fact(name, value, "", 1.0) for name, value in values.items()}
    clip = Utterance("x", Path("x.wav"), language="en", text="Kids are talking by the door")
    return Heard(clip, text, "en", Facts(2.0, 1.0, MappingProxyType(facts)))


def test_claims_are_judged_by_what_is_outside_alone() -> None:
    # Ours say high, loud and fast; Praat hears an octave less, pyloudnorm -40 LUFS.
    one = heard("A high, loud, fast voice.", pitch_offset_st=8.0, pitch_median_hz=300.0,
                loudness_db=-10.0, pace_syllables_per_s=2.0, pause_share=0.0)  # fmt: skip
    counts = witnesses.verdicts([one], [Outside(150.0, 5, 0.0, -40.0)])
    assert counts["pitch"][Verdict.CONTRADICTED] == 1  # 8 - 12 semitones
    assert counts["volume"][Verdict.CONTRADICTED] == 1
    assert counts["pace"][Verdict.SUPPORTED] == 1  # seven syllables in a second
    told = witnesses.verdicts([one], [Outside(None, None, None, None)])
    assert told["pitch"][Verdict.CANNOT_TELL] == told["volume"][Verdict.CANNOT_TELL] == 1


def test_the_rate_of_a_transcript_counts_pauses_but_no_ends() -> None:
    # Seven syllables; one second of speech is four fifths of what it stretches over.
    assert heard("", pause_share=0.2).text_rate == pytest.approx(7 / 1.25)


def test_a_made_voice_before_praat_and_pyloudnorm() -> None:
    pytest.importorskip("parselmouth")
    pytest.importorskip("pyloudnorm")
    beat = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * np.arange(32_000) / 16_000)
    found = witnesses.listen(waveform(0.1 * beat * harmonics(np.full(32_000, 180.0), top_hz=2160)))
    assert found.pitch_hz == pytest.approx(180.0, rel=0.01)
    assert found.nuclei in (7, 8)
    assert found.slope_db_per_s == pytest.approx(0.0, abs=0.5)
    louder = witnesses.listen(waveform(0.2 * beat * harmonics(np.full(32_000, 180.0), top_hz=2160)))
    assert louder.loudness_lufs - found.loudness_lufs == pytest.approx(20 * np.log10(2), abs=0.01)


def test_captions_of_a_file_are_taken_by_id_or_file(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text('{"id": "a", "caption": "Sad."}\n{"file": "b/c.wav", "caption": "Glad."}\n')
    assert witnesses.read_texts(file) == {"a": "Sad.", "c": "Glad."}
    file.write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match=r"captions.jsonl:1: needs .* aligncap caption FOLDER"):
        witnesses.read_texts(file)


class Mute:
    """A captioner that says the same of every clip."""

    def caption_many(self, paths: list[Path], **_: object) -> list[SimpleNamespace]:
        facts = Facts(2.0, 1.0, MappingProxyType({}))
        said = SimpleNamespace(text="A low voice.", facts=facts, vocalization=None)
        return [said] * len(paths)


def test_captions_of_a_file_stand_for_the_models_in_their_own_language() -> None:
    clips = [Utterance(name, Path(f"{name}.wav")) for name in "ab"]
    texts = {"a": "A loud, high voice.", "b": "他的声音很低。"}
    captioner: Any = Mute()
    for language in ("en", "zh"):
        found = witnesses.hear(captioner, clips, language, texts)
        assert [(one.text, one.language) for one in found] == [
            (texts["a"], "en"), (texts["b"], "zh")
        ]  # fmt: skip
        found = witnesses.hear(captioner, clips, language)
        assert {(one.text, one.language) for one in found} == {("A low voice.", language)}
    with pytest.raises(DataError, match="1 of 2 clips have no caption, the first is b"):
        witnesses.hear(captioner, clips, "en", {"a": "Loud."})


def test_the_page_names_the_captions_that_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fact_lines", "rate_lines", "claim_lines", "people_lines"):
        monkeypatch.setattr(witnesses, name, lambda *_: [])
    for name, made in {
        "read_manifest": lambda _: [],
        "find_model": Path,
        "model_fingerprint": lambda _: "f" * 64,
    }.items():
        monkeypatch.setattr(witnesses, name, made)
    monkeypatch.setattr(witnesses.aligncap, "load", lambda _: Mute())
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "theirs.jsonl"
    file.write_text('{"id": "a", "caption": "Sad."}\n')
    title, made_by, _ = witnesses.report("mini", tmp_path, tmp_path / "x", most=3, captions=file)
    assert title == "theirs.jsonl before witnesses from outside"
    assert "witnesses --captions theirs.jsonl`; do not edit." in made_by
    assert f"· captions {hash_of_file(file)[:12]} ·" in made_by
    title, made_by, _ = witnesses.report("mini", tmp_path, tmp_path / "x", most=3)
    assert title == "mini before witnesses from outside"
    assert "captions" not in made_by
