"""What a record says of a voice: certainty, arousal and valence, gender, sounds without words, and
everything relative to how the speaker usually sounds."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from aligncap import load as load_model
from aligncap.audio import load
from aligncap.errors import DataError, NoSpeechError
from aligncap.values import VOCALIZATIONS, Caption, SpeechTokens, Vector, Verdict, Waveform
from captioner.test_captioner import SILENCE, captioner
from support.captioner import LoudnessTokenizer, write_whisper_model

SAID = "She sounds sad and speaks slowly in a deep voice."
SAID_ZH = "她听起来很悲伤，语速很慢。"


def heard(**more: object) -> LoudnessTokenizer:
    """A tokenizer that reads this of every recording."""
    readout = {
        "emotion": {"sad": 0.5, "angry": 0.4, "neutral": 0.1},
        "gender": {"female": 0.99, "male": 0.01},
        "arousal": {"level": -0.35},
        "novelty": {"score": 0.4},
        "vocalization": {"speech": 0.9, "sighing": 0.1},
    }
    return LoudnessTokenizer(readout={**readout, **more})


def test_arousal_and_valence_are_the_voices_whatever_the_caption_says(example_clips):
    texts = (SAID, "She is overjoyed, and shouts.")
    one, other = (captioner(t, tokenizer=heard())[0].caption(example_clips[0]) for t in texts)
    assert one.arousal == other.arousal == -0.35
    # The places of sad, angry and calm on the axis of valence: -0.7, -0.7 and 0.1.
    assert one.valence == other.valence == pytest.approx(-0.7 * 0.5 - 0.7 * 0.4 + 0.1 * 0.1)
    beyond = captioner(tokenizer=heard(arousal={"level": 1.2}))[0].caption(example_clips[0])
    assert beyond.arousal == 1.0


@pytest.mark.parametrize(
    ("emotions", "certainty", "second"),
    [
        ({"sad": 0.7, "angry": 0.3}, "sure", None),
        ({"sad": 0.5, "angry": 0.4, "happy": 0.1}, "likely", "angry"),
        ({"sad": 0.35, "angry": 0.2, "happy": 0.2, "bored": 0.15, "neutral": 0.1}, "unsure", None),
    ],
)
def test_it_says_how_sure_the_emotion_is_and_what_else_it_may_be(
    example_clips, emotions, certainty, second
):
    caption = captioner(SAID, tokenizer=heard(emotion=emotions))[0].caption(example_clips[0])
    assert (caption.certainty, caption.second_emotion) == (certainty, second)
    assert caption.confidence == pytest.approx(emotions["sad"])


def test_english_and_chinese_records_differ_in_words_alone(example_clips):
    english, chinese = (
        captioner(text, tokenizer=heard())[0].caption(example_clips[0], language=language)
        for text, language in ((SAID, "en"), (SAID_ZH, "zh"))
    )
    words = ("caption", "language", "clues")
    one, other = (
        {key: value for key, value in caption.to_dict().items() if key not in words}
        for caption in (english, chinese)
    )
    assert one == other
    assert one["certainty"] == "likely"


@pytest.mark.parametrize("female", [0.9999, 0.5, 0.0001, None])
def test_a_stated_gender_is_the_one_that_the_evidence_says(example_clips, female):
    head = {"female": female, "male": 1 - female} if female else {}
    made, _ = captioner(SAID, tokenizer=heard(gender=head))
    stated = [(one.gender, verdict_on_gender(one)) for one in made.caption(example_clips[:6])]
    for gender, verdict in stated:
        assert (gender == "female") == (verdict is Verdict.SUPPORTED)
        assert gender != "male" or verdict is Verdict.CONTRADICTED


def verdict_on_gender(caption: Caption) -> Verdict:
    [found] = [one.verdict for one in caption.evidence if one.clue.trait == "gender"]
    return found


class TestWithoutWords:
    @pytest.mark.parametrize(
        ("sound", "english", "chinese"),
        [
            ("coughing", "No words: someone is coughing.", "没有说话：有人在咳嗽。"),
            (
                "throat-clearing",
                "No words: someone is clearing their throat.",
                "没有说话：有人在清嗓子。",
            ),
        ],
    )
    def test_the_sound_is_named_and_nothing_is_said_of_an_emotion(
        self, example_clips, sound, english, chinese
    ):
        made, reciter = captioner(tokenizer=heard(vocalization={"speech": 0.2, sound: 0.8}))
        caption = made.caption(example_clips[0])
        assert (caption.text, caption.vocalization, caption.confidence) == (english, sound, 0.8)
        record = caption.to_dict()
        empty = ("emotion", "arousal", "valence", "gender", "pitch", "loudness", "pace")
        assert {record[key] for key in (*empty, "second_emotion")} == {None}
        assert caption.certainty == "sure"
        assert record["clues"] == []
        assert made.caption(example_clips[0], language="zh").text == chinese
        assert reciter.batches == []  # the language model was not asked

    def test_every_sound_has_its_words_in_both_languages(self, example_clips):
        for sound in VOCALIZATIONS[1:]:
            made, _ = captioner(tokenizer=heard(vocalization={sound: 1.0}))
            texts = {made.caption(example_clips[0], language=one).text for one in ("en", "zh")}
            assert len(texts) == 2

    @pytest.mark.parametrize("sounds", [{"speech": 0.4, "coughing": 0.45}, {"speech": 1.0}, {}])
    def test_a_doubtful_one_is_speech(self, example_clips, sounds):
        caption = captioner(SAID, tokenizer=heard(vocalization=sounds))[0].caption(example_clips[0])
        assert (caption.text, caption.vocalization) == (SAID, None)

    def test_among_others_it_stays_in_its_place(self, example_clips):
        @dataclass(frozen=True)
        class Coughs(LoudnessTokenizer):
            def encode(self, waveform: Waveform) -> SpeechTokens:
                cough = {"speech": 0.1, "coughing": 0.9} if waveform.source == "cough" else {}
                return SpeechTokens(super().encode(waveform).codes, {"vocalization": cough})

        speech, cough = load(example_clips[0]), Waveform(load(example_clips[1]).samples, "cough")
        made, _ = captioner(SAID, tokenizer=Coughs())
        outcomes = list(made.caption_many([speech, cough, SILENCE, cough, speech]))
        assert [getattr(one, "vocalization", one) for one in outcomes[:2]] == [None, "coughing"]
        assert isinstance(outcomes[2], NoSpeechError)
        assert [one.text for one in outcomes[3:]] == ["No words: someone is coughing.", SAID]
        with pytest.raises(NoSpeechError, match="cough: holds coughing, no words"):
            made.baseline([speech, cough])


@pytest.mark.parametrize(("score", "flag"), [(0.98, False), (0.99, True), (None, None)])
def test_what_is_unlike_the_training_data_is_flagged(example_clips, score, flag):
    novelty = {} if score is None else {"score": score}
    caption = captioner(SAID, tokenizer=heard(novelty=novelty))[0].caption(example_clips[0])
    assert caption.unfamiliar is flag


@dataclass(frozen=True)
class Relative(LoudnessTokenizer):
    """Its vector is the mean level and a one; it keeps the baselines it was given."""

    given: list[Vector] = field(default_factory=list)

    def encode(self, waveform: Waveform, baseline: Vector | None = None) -> SpeechTokens:
        if baseline is not None:
            self.given.append(baseline)
        level = float(np.abs(waveform.samples).mean())
        codes = super().encode(waveform).codes
        return SpeechTokens(codes, self.readout, np.array([level, 1.0], np.float32))


def louder(waveform: Waveform, decibels: float) -> Waveform:
    return Waveform((waveform.samples * 10 ** (decibels / 20)).astype(np.float32))


class TestBaseline:
    def test_loud_is_louder_than_the_speaker_usually_is(self, example_clips):
        usual = louder(load(example_clips[0]), -20)
        made, _ = captioner("She speaks loudly.", tokenizer=Relative())
        baseline = made.baseline([usual, usual, louder(usual, 30)])  # the median counts
        assert (baseline.source, baseline.clips) == ("3 recordings", 3)
        assert made.caption(usual).loudness in (None, "quiet")
        raised = louder(usual, 4)
        evidence = made.caption(raised, baseline=baseline).evidence[-1]
        assert evidence.verdict is Verdict.SUPPORTED
        assert "4.0 dB above the speaker's usual" in evidence.measurement
        for decibels, level in ((4, "loud"), (0, "normal"), (-4, "quiet"), (2, None)):
            caption = made.caption(louder(usual, decibels), baseline=baseline)
            assert caption.loudness == level
            # The pace of this tokenizer is by syllable nuclei, which claim nothing.
            assert (caption.pitch, caption.pace) == ("normal", None)
        record = caption.to_dict()["baseline"]
        assert (record["source"], record["clips"]) == ("3 recordings", 3)
        assert record["loudness_db"] == pytest.approx(baseline.loudness_db, abs=0.01)

    def test_the_encoder_is_given_the_mean_of_the_vectors(self, example_clips):
        tokenizer = Relative()
        made, _ = captioner(tokenizer=tokenizer)
        clips = list(map(load, example_clips[:2]))
        made.caption(clips[0], baseline=made.baseline(clips))
        levels = [float(np.abs(one.samples).mean()) for one in clips]
        [given] = tokenizer.given
        np.testing.assert_allclose(given, [np.mean(levels), 1.0], rtol=1e-5)

    def test_one_of_another_model_is_refused(self, example_clips):
        made, _ = captioner(tokenizer=Relative(fingerprint="another"))
        baseline = made.baseline(example_clips[0])
        with pytest.raises(DataError, match=r"baseline of 1 recording: .* another model"):
            captioner(tokenizer=Relative())[0].caption(example_clips[0], baseline=baseline)
        with pytest.raises(DataError, match="at least one"):
            made.baseline([])

    def test_a_model_that_gives_no_vectors_still_measures(self, example_clips):
        made, _ = captioner()
        baseline = made.baseline(example_clips[0])
        assert baseline.vector is None
        assert made.caption(example_clips[0], baseline=baseline).pitch == "normal"

    def test_each_recording_is_held_against_the_speakers_others(self, example_clips):
        tokenizer = Relative()
        made, _ = captioner(tokenizer=tokenizer)
        clip = load(example_clips[0])
        levels = [0.0, 1.0, 2.0, 5.0]
        four = [louder(clip, level) for level in levels]
        given = [*four, SILENCE, clip, clip, clip]
        found = made.baselines(given, ["a", "a", "a", "a", "a", "b", "b", None])
        own = made.baseline(clip).loudness_db
        others = [np.median(np.delete(levels, place)) for place in range(4)]
        for baseline, other in zip(found, others, strict=False):
            assert (baseline.source, baseline.clips) == ("speaker a", 3)
            assert baseline.loudness_db == pytest.approx(own + other, abs=0.05)
        loud = np.array([10 ** (level / 20) for level in levels])
        mean = np.abs(clip.samples).mean()
        for place in range(4):
            expected = [mean * np.delete(loud, place).mean(), 1.0]
            np.testing.assert_allclose(found[place].vector, expected, rtol=1e-4)
        assert found[4].clips == 4  # silence counts for nothing
        assert [one.reason for one in found[5:]] == [
            "it needs 3 utterances, 2 can be used",
            "it needs 3 utterances, 2 can be used",
            "its speaker is not known",
        ]
        three = made.baselines(four[:3], ["a"] * 3)
        assert {one.clips for one in three} == {3}  # each counts itself: two would be too few

    def test_voices_are_of_all_recordings_of_a_speaker(self, example_clips):
        made, _ = captioner(tokenizer=Relative())
        clip = load(example_clips[0])
        own = [louder(clip, level) for level in (0.0, 1.0, 2.0, 5.0)]
        pairs = [("a", own[0]), ("b", clip), *(("a", one) for one in own[1:]), ("a", SILENCE)]
        voices = made.voices([*pairs, ("b", NoSpeechError("nothing")), ("c", SILENCE)])
        expected = made.baseline(own)
        assert voices["a"].to_dict() == {**expected.to_dict(), "source": "speaker a"}
        assert voices["a"].tokenizer == expected.tokenizer
        np.testing.assert_allclose(voices["a"].vector, expected.vector, rtol=1e-6)
        reasons = {name: one.reason for name, one in voices.items() if not one.clips}
        assert reasons == {
            "b": "it needs 3 utterances, 1 can be used",
            "c": "it needs 3 utterances, 0 can be used",
        }

    def test_one_that_there_is_not_changes_nothing_but_says_so(self, example_clips):
        made, _ = captioner()
        [none] = made.baselines(example_clips[:1], ["a"], kind="folder")
        caption = made.caption(example_clips[0], baseline=none)
        assert replace(caption, baseline=None) == made.caption(example_clips[0])
        reason = "it needs 3 utterances, 1 can be used"
        expected = {"source": "folder a", "clips": 0, "reason": reason}
        assert caption.to_dict()["baseline"] == expected


def test_a_model_with_an_encoder_of_whispers_layers_from_its_folder(example_clips, tmp_path):
    made = load_model(write_whisper_model(tmp_path / "model"), beam_size=1)
    alone = made.caption(example_clips[0])
    assert alone.text
    assert (alone.arousal, alone.unfamiliar, alone.vocalization) == (0.0, False, None)
    assert max(alone.emotion, key=alone.emotion.__getitem__) == "sad"
    baseline = made.baseline(example_clips[:2])
    against = made.caption(example_clips[0], baseline=baseline)
    assert against.arousal == pytest.approx(float(baseline.vector.mean()), abs=1e-5)
    assert max(against.emotion, key=against.emotion.__getitem__) == "happy"
