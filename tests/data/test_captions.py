"""Captions and clues of an utterance: from its labels, its facts, or the people who wrote some."""

import json
from pathlib import Path

import pytest

from aligncap.audio import load
from aligncap.clues import Levels, clue_of, emotion_of, find_clues
from aligncap.data.captions import gold_clues, meaning_of, write_captions
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import validation_split
from aligncap.prosody import measure
from aligncap.values import Clue, Fact, Facts

UNKNOWN = dict.fromkeys(Levels.__dataclass_fields__)
LEVELS = Levels(**{**UNKNOWN, "gender": "male", "pitch": "high", "pace": "fast"})


def utterance(**known: object) -> Utterance:
    return Utterance(**{"id": "u1", "path": Path("u1.wav"), **known})


def pairs(clues: tuple[Clue, ...]) -> list[tuple[str, str]]:
    return [(clue.trait, clue.meaning) for clue in clues]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_captions_say_the_label_and_what_was_measured(language: str) -> None:
    sad = utterance(emotion="sad", label="sadness", gender="female")
    captions = write_captions(sad, LEVELS, language=language, count=30, seed=1)
    assert len(set(captions)) == 30
    said = {pair for text in captions for pair in pairs(find_clues(text, language))}
    # The gender is the label's, though the measurement says male.
    assert said == {("emotion", "sad"), ("gender", "female"), ("pitch", "high"), ("pace", "fast")}


def test_the_seed_and_the_utterance_choose_the_captions() -> None:
    def drawn(name: str, seed: int) -> list[str]:
        clip = utterance(id=name, emotion="happy")
        return write_captions(clip, None, language="en", count=5, seed=seed)

    assert drawn("u1", 1) == drawn("u1", 1) != drawn("u1", 2)
    assert drawn("u1", 1) != drawn("u2", 1)


def test_what_people_wrote_is_used_as_it_is() -> None:
    clip = utterance(captions=("声音颤抖，十分难过。", "伤心", "伤心"), emotion="sad")
    captions = write_captions(clip, None, language="zh", count=3, seed=0)
    assert captions == ["声音颤抖，十分难过。", "伤心"]
    english = write_captions(clip, None, language="en", count=3, seed=0)
    assert [emotion_of(text) for text in english] == ["sad"] * 3
    unlabelled = utterance(captions=("伤心",))
    assert write_captions(unlabelled, None, language="en", count=3, seed=0) == []


def test_a_measured_gender_helps_where_the_corpus_has_none() -> None:
    meaning = meaning_of(utterance(emotion="neutral", label="calm"), LEVELS)
    assert meaning is not None
    assert (meaning.gender, meaning.calm) == ("male", True)
    assert meaning.levels == {"pitch": "high", "pace": "fast"}


def test_gold_clues_are_labels_first_and_measurements_after() -> None:
    values = {"pitch_offset_st": 6.0, "loudness_db": -26.0, "pace_syllables_per_s": 7.0}
    values["female_probability"] = 0.02
    by_name = {name: Fact(name, value, "", 1.0) for name, value in values.items()}
    facts = Facts(duration_s=3.0, speech_s=2.5, by_name=by_name)
    clip = utterance(emotion="fearful", gender="female")  # and not the male that was measured
    labels = [("emotion", "fearful"), ("gender", "female")]
    assert pairs(gold_clues(clip)) == labels
    # A volume in the middle goes without saying.
    measured = [("pitch", "high"), ("pace", "fast")]
    assert pairs(gold_clues(clip, facts)) == labels + measured
    captioned = gold_clues(utterance(captions=("声音颤抖，语速很快，十分难过。",)))
    assert {*pairs(captioned)} == {
        ("voice quality", "trembling"), ("pace", "fast"), ("emotion", "sad"),
    }  # fmt: skip


@pytest.mark.speech_data
def test_real_clips_are_described(speech_data: Path) -> None:
    _, validation = validation_split(read_manifest(speech_data / "ravdess" / "manifest.jsonl"))
    for clip in validation[::30]:
        measured = measure(load(clip.path))
        told = gold_clues(clip, measured)
        assert told[:2] == (clue_of("emotion", clip.emotion), clue_of("gender", clip.gender))
        assert len({*pairs(told)}) == len(told)
        (caption,) = write_captions(clip, measured, language="en", count=1, seed=0)
        said = {pair for pair in pairs(find_clues(caption)) if pair[0] != "tone"}
        assert said <= {*pairs(told)}, caption


def test_no_sentence_is_copied_from_the_captions_we_learnt_from(speech_data: Path) -> None:
    rows = [
        json.loads(line)
        for path in (speech_data.parent / "captions").glob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    known = {(x.get("caption") or x.get("style_prompt")).strip(" .。").lower() for x in rows}
    assert len(known) > 4_000
    for emotion in ("angry", "sad", "neutral"):
        clip = utterance(emotion=emotion, gender="male")
        for language in ("en", "zh"):
            drawn = write_captions(clip, LEVELS, language=language, count=300, seed=0)
            assert not {text.strip(" .。").lower() for text in drawn} & known
