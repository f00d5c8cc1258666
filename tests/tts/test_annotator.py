"""`annotate` and `complete`: rows in, rows out, whatever the rows hold."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import AlignCapError, RecipeError, UnknownNameError
from aligncap.tts import AnnotateSettings, Annotator, complete, speaker_statistics
from aligncap.tts.annotator import FOUND, own_columns, usual_voices, waveform_of
from aligncap.tts.bins import read_bins
from aligncap.values import RATE_HZ, Waveform
from tts.made import COUNT, bytes_of, columns_of, open_fake, sound_of


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator(AnnotateSettings(), open_fake)


def rows() -> list[dict[str, Any]]:
    return [{**columns_of(n), "audio": bytes_of(n)} for n in range(COUNT)]


def test_rows_come_back_in_order_with_all_columns(annotator: Annotator) -> None:
    given = rows()
    done = annotator(given)
    assert [row["id"] for row in done] == [row["id"] for row in given]
    for before, row in zip(given, done, strict=True):
        assert {*own_columns(annotator.settings)} - {"part_s"} <= row.keys()
        assert row["take"] == before["take"]
        assert (row["input_emotion"], row["emotion"]) == ("sad", "angry")
        assert row["error"] is None
        assert (row["gender"], row["gender_source"]) == (before["gender"], "corpus")
        assert row["evidence"][0]["word"] == "loud"
        assert row["text_description"].startswith("Somebody speaks loudly. ")
        scale = read_bins("v02")[f"pitch_bins_{row['gender']}"]
        assert row["pitch"] == scale.text(row["utterance_pitch_mean"])
        assert row["pitch_z"] is None


def test_speakers_give_z_scores_and_the_text_of_their_pitch(annotator: Annotator) -> None:
    done = annotator(rows())
    speakers = speaker_statistics(done)
    assert speakers.keys() == {"anna", "ben"}
    done = [complete(row, speakers) for row in done]
    for name in speakers:
        own = [row for row in done if row["speaker_id"] == name]
        means = [row["utterance_pitch_mean"] for row in own]
        scale = read_bins("v02")[f"pitch_bins_{own[0]['gender']}"]
        assert {row["pitch"] for row in own} == {scale.text(float(np.mean(means)))}
        assert np.mean([row["loudness_z"] for row in own]) == pytest.approx(0.0, abs=1e-3)
        assert np.std([row["loudness_z"] for row in own]) == pytest.approx(1.0, abs=1e-3)
    again = [complete(row, speakers) for row in done]
    assert again == done


def test_without_a_gender_the_voice_tells_it() -> None:
    annotator = Annotator(AnnotateSettings(speaker="*"), open_fake)
    done = annotator([{"audio": bytes_of(n)} for n in (1, 3, 5)])
    assert [row["gender_source"] for row in done] == ["heard"] * 3
    [speaker] = speaker_statistics(done, annotator.settings).items()
    assert speaker[0] == "*"
    speaker[1].female.mean = 0.9
    whole = [complete(row, dict([speaker]), annotator.settings) for row in done]
    assert {row["gender"] for row in whole} == {"female"}
    assert len({row["pitch"] for row in whole}) == 1
    unknown = [{**row, "speaker_id": ""} for row in done]
    assert speaker_statistics(unknown) == {}


def test_a_column_of_speakers_that_is_not_there_is_said_as_one_of_texts_is() -> None:
    for changes in ({"speaker": "speakr"}, {"text": "speakr"}):
        done = Annotator(AnnotateSettings(**changes), open_fake)(rows()[:2])
        assert all(row["error"].startswith("no column called 'speakr'") for row in done)


def test_speakers_are_known_by_utterances_from_all_of_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aligncap.tts.annotator.USUAL", 3)
    # Ben's corpus is sorted: first low, then high.
    rows = [{"audio": bytes_of(n), "speaker": "ben"} for n in (0, 0, 2, 2, 3, 3, 5)]
    rows[2:2] = [{"audio": bytes_of(1), "speaker": "anna"}, {"audio": bytes_of(1)}]
    rows.append({"audio": b"no sound", "speaker": "anna"})
    settings = AnnotateSettings(per_speaker=True)
    annotator = Annotator(settings, open_fake)
    found = usual_voices(annotator.captioner, lambda: rows, settings)
    heard = [waveform_of(bytes_of(n)) for n in (0, 2, 5)]
    [expected, *_] = annotator.captioner.baselines(heard, ["ben"] * 3)
    assert found["ben"].to_dict() == expected.to_dict()
    assert (found["anna"].clips, found["anna"].reason) == (
        0,
        "it needs 3 utterances, 1 can be used",
    )
    clips = [row.get("baseline_clips") for row in annotator(rows)]
    assert clips == [3, 3, 0, None, 3, 3, 3, 3, 3, None]
    given = annotator.columns(iter(rows), found)
    assert clips == [row.get("baseline_clips") for row in given]
    assert "baseline" not in annotator(rows)[0]
    assert annotator([]) == []
    assert "baseline_clips" not in Annotator(AnnotateSettings(), open_fake)(rows)[0]
    assert "baseline_clips" not in annotator([{"audio": bytes_of(1)}])[0]
    [again] = Annotator(AnnotateSettings(), open_fake)([{**rows[0], "baseline_clips": 7}])
    assert (again.get("baseline_clips"), again["input_baseline_clips"]) == (None, 7)


@pytest.mark.parametrize("nothing", ["", None])
def test_an_empty_gender_is_none(annotator: Annotator, nothing: str | None) -> None:
    [row] = annotator([{**rows()[0], "gender": nothing}])
    assert (row["gender"], row["gender_source"]) == (row["heard_gender"], "heard")


BAD = (None, 3, "nowhere.wav", b"", b"no sound", {}, {"bytes": None, "path": None}, [1.0])
BAD += ({"bytes": 1 << 40, "path": "a.wav"}, {"bytes": [1.0], "path": "a.wav"})
BAD += ({"array": "x", "sampling_rate": 1}, {"array": np.zeros(16000)}, {"path": 3}, object())


def test_a_bad_row_has_an_error_and_the_others_their_columns(annotator: Annotator) -> None:
    good = rows()
    mixed = [*good[:2], *({"id": f"bad{n}", "audio": one} for n, one in enumerate(BAD)), good[2]]
    mixed.append({"id": "silent", "audio": {"array": np.zeros(16000), "sampling_rate": 16000}})
    done = annotator([*mixed, {"id": "none"}])
    failed = {row["id"] for row in done if row["error"]}
    assert failed == {*(f"bad{n}" for n in range(len(BAD))), "silent", "none"}
    assert all(
        "\n" not in row["error"] and row["text_description"] is None for row in done if row["error"]
    )
    alone = annotator(good[:3])
    whole = [row for row in done if not row["error"]]
    assert whole == alone


plain = st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.floats()
anything = plain | st.dictionaries(st.sampled_from(["bytes", "path", "array", "x"]), plain)


@given(st.lists(st.dictionaries(st.sampled_from(["audio", "text", "gender", "error"]), anything)))
def test_no_row_raises(rows: list[dict[str, Any]]) -> None:
    done = Annotator(AnnotateSettings(), open_fake)(rows)
    assert len(done) == len(rows)
    assert all(row["error"] for row in done)


def test_recordings_are_taken_as_people_hold_them(tmp_path) -> None:
    samples = sound_of(1).astype(np.float32)
    file = tmp_path / "a.wav"
    file.write_bytes(bytes_of(1))
    decoded = SimpleNamespace(data=samples[None], sample_rate=RATE_HZ)
    held = [
        *(file, str(file), bytes_of(1), {"bytes": bytes_of(1), "path": "a.wav"}),
        *({"bytes": None, "path": str(file)}, {"array": samples, "sampling_rate": RATE_HZ}),
        *(Waveform(samples), SimpleNamespace(get_all_samples=lambda: decoded)),
        {"array": samples.tolist(), "sampling_rate": RATE_HZ},
    ]
    for one in held:
        assert waveform_of(one).samples == pytest.approx(samples, abs=2e-4)
    with pytest.raises(AlignCapError):
        waveform_of(AlignCapError("known before"))


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(RecipeError):
        AnnotateSettings(language="de")
    with pytest.raises(UnknownNameError):
        AnnotateSettings(bins="v03")


def test_a_caption_in_chinese_stands_alone() -> None:
    [row] = Annotator(AnnotateSettings(language="zh"), open_fake)([{"audio": bytes_of(0)}])
    assert row["text_description"] == row["caption"] == "一个人大声说话。"


def test_without_bins_the_speaking_rate_is_a_number() -> None:
    annotator = Annotator(AnnotateSettings(bins="none"), open_fake)
    [row] = annotator([{"audio": bytes_of(0), "text": "Kids are talking by the door"}])
    assert row["speaking_rate"] == row["phonemes_per_s"] > 0
    assert "noise" not in row
    assert row["text_description"] == row["caption"]
    assert set(FOUND) - {"part_s"} <= row.keys()
