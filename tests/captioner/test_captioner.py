"""From sound to caption: one recording or many, good ones and bad ones."""

import itertools
import math
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import soundfile

import aligncap
from aligncap.audio import load as load_sound
from aligncap.captioner.captioner import (
    Captioner,
    CaptionGenerator,
)
from aligncap.captioner.checkpoint import MODELS, find_model
from aligncap.captioner.choosing import readout_log_probability, rerank
from aligncap.captioner.preparing import (
    LARGEST_AHEAD,
    PreparedSpeech,
    Preprocessor,
    densest_window,
)
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.record import CaptionHypothesis
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.errors import (
    AlignCapError,
    AudioError,
    DataError,
    MissingModelError,
    NoSpeechError,
    RecipeError,
    UnknownNameError,
)
from aligncap.values import EMOTIONS, Fact, Facts, SpeechTokens, Verdict, Waveform
from support.captioner import LoudnessTokenizer, Reciter, tiny_meta, wide_vocabulary

VOCABULARY = wide_vocabulary()
SAID = (
    "She sounds calm and speaks slowly in a deep voice.",
    "She sounds sad.",
    "Is she angry? Yes!",
)


def captioner(
    *texts: str,
    tokenizer: LoudnessTokenizer | None = None,
    longest_s: float = 30.0,
    workers: int = 2,
    **changes: object,
) -> tuple[Captioner, Reciter]:
    reciter = Reciter(VOCABULARY, texts or SAID)
    meta = tiny_meta(**{"vocabulary": VOCABULARY.shape, "act_mode": "none", **changes})
    made = Captioner(
        CaptionGenerator(meta, PromptBuilder(VOCABULARY), reciter),
        Preprocessor(tokenizer or LoudnessTokenizer(), longest_s),
        options=DecodeOptions(beam_size=3),
        workers=workers,
    )
    return made, reciter


SILENCE = Waveform(np.zeros(32_000, np.float32), "silence")


def test_a_file_a_waveform_and_an_array_are_captioned_alike(example_clips):
    made, reciter = captioner()
    clip = example_clips[0]
    waveform = load_sound(clip)
    captions = [
        *made.caption([str(clip), clip, waveform]),
        made.caption(waveform.samples, rate_hz=16_000),
    ]
    assert all(caption == captions[0] for caption in captions)
    assert len({prompt for batch in reciter.batches for prompt in batch}) == 1
    samples, rate_hz = soundfile.read(clip)
    resampled = made.caption(samples, rate_hz=rate_hz)
    assert resampled.duration_s == pytest.approx(captions[0].duration_s, abs=0.01)
    with pytest.raises(AudioError, match="rate_hz"):
        made.caption(samples)


@pytest.mark.parametrize(
    "rate", ["x", "16000", b"16000", [1, 2], float("nan"), float("inf"), {}, 1j]
)
def test_a_rate_that_is_no_number_is_named(rate):
    made, samples = captioner()[0], np.zeros(16_000, np.float32)
    table = {"array": samples, "sampling_rate": rate}
    for given, options, name in (
        (table, {}, "sampling_rate"),
        ({"audio": table}, {}, "sampling_rate"),
        (samples, {"rate_hz": rate}, "rate_hz"),
    ):
        with pytest.raises(AudioError) as caught:
            made.caption(given, **options)
        assert str(caught.value).startswith(f"{name} is ")
        assert "give the sampling rate in Hz" in str(caught.value)
        with pytest.raises(AudioError, match="give the sampling rate"):
            made.baseline(given, **options)


def test_a_baseline_needs_a_speaker_for_each_recording(example_clips):
    made, _ = captioner()
    for speakers in (["x", "y"], []):
        with pytest.raises(DataError, match=rf"1 recordings, {len(speakers)} speakers; give one"):
            made.baselines([example_clips[0]], speakers)


class TestRecord:
    def test_it_says_what_is_known_and_how_sure_the_beams_are_together(self, example_clips):
        caption = captioner()[0].caption(example_clips[0])
        found = (caption.text, caption.model, caption.candidates, caption.part_s)
        assert found == (SAID[0], "tiny", (), None)
        assert caption.log_probability == pytest.approx(-1.0 / len(VOCABULARY.encode_text(SAID[0])))
        judged = {(e.clue.trait, e.clue.meaning): e.verdict for e in caption.evidence}
        assert judged["emotion", "neutral"] is Verdict.CANNOT_TELL
        assert {("pace", "slow"), ("pitch", "low"), ("gender", "female")} <= set(judged)
        assert all(evidence.measurement for evidence in caption.evidence)
        assert caption.arousal is not None
        assert caption.arousal < 0
        # Calm e^-1, sad e^-2, angry e^-3 of what is named; neutral is what calm stands for.
        weights = np.exp([-1.0, -2.0, -3.0])
        named = dict(zip(("neutral", "sad", "angry"), weights / weights.sum(), strict=True))
        assert caption.emotion == pytest.approx({name: named.get(name, 0.0) for name in EMOTIONS})
        assert caption.confidence == pytest.approx(named["neutral"])

    def test_the_tokenizers_own_heads_come_first(self, example_clips):
        heads = {"sad": 0.75, "neutral": 0.25}
        tokenizer = LoudnessTokenizer(readout={"emotion": heads})
        caption = captioner(tokenizer=tokenizer)[0].caption(example_clips[0])
        assert caption.emotion == {name: heads.get(name, 0.0) for name in EMOTIONS}
        assert caption.confidence == 0.25
        nameless = captioner("A woman speaks.")[0].caption(example_clips[0])
        assert nameless.confidence == 1 / len(EMOTIONS)  # no beam names one
        assert sum(nameless.emotion.values()) == pytest.approx(1.0)

    def test_candidates_are_the_others_each_once_and_evidence_can_be_left_out(self, example_clips):
        made, _ = captioner(SAID[0], SAID[0], SAID[1], SAID[2])
        assert made.caption(example_clips[0], candidates=4).candidates == (SAID[1], SAID[2])
        fewer = made.caption(example_clips[0], candidates=2, evidence=False)
        assert (fewer.candidates, fewer.evidence) == ((SAID[1],), ())


class TestSeveral:
    def test_bad_recordings_never_lose_the_others(self, example_clips, tmp_path):
        (tmp_path / "text.wav").write_text("no sound")
        good = [load_sound(clip).duration_s for clip in example_clips[:3]]
        given = {
            example_clips[0]: good[0],
            tmp_path / "none.wav": AudioError,
            SILENCE: NoSpeechError,
            example_clips[1]: good[1],
            Waveform(np.ones(1, np.float32), "one sample"): NoSpeechError,
            Waveform(np.zeros(0, np.float32), "nothing"): NoSpeechError,
            tmp_path / "text.wav": AudioError,
            example_clips[2]: good[2],
        }
        outcomes = list(captioner()[0].caption_many(given))
        found = [type(o) if isinstance(o, AlignCapError) else o.duration_s for o in outcomes]
        assert found == list(given.values())
        assert all("\n" not in str(one) for one in outcomes if isinstance(one, AlignCapError))

    def test_the_first_error_is_raised(self, example_clips):
        made, _ = captioner()
        with pytest.raises(NoSpeechError, match="silence"):
            made.caption([example_clips[0], SILENCE, example_clips[1]])
        assert len(made.caption(list(example_clips[:2]))) == 2
        assert made.caption([]) == []

    def test_what_is_asked_for_is_checked_before_anything_is_read(self):
        made, _ = captioner()
        with pytest.raises(UnknownNameError, match="language"):
            made.caption_many(["nowhere.wav"], language="fr")
        with pytest.raises(RecipeError, match="candidates"):
            made.caption_many(["nowhere.wav"], candidates=0)

    def test_a_stream_is_read_a_little_ahead_in_growing_batches(self, example_clips):
        made, reciter = captioner()
        read, waveform = itertools.count(), load_sound(example_clips[0])
        stream = made.caption_many(waveform for _ in read)
        next(stream)
        assert next(read) <= 2 + 8
        for _ in itertools.islice(stream, 41):
            pass
        stream.close()
        assert [len(batch) for batch in reciter.batches] == [2, 8, 32]
        assert LARGEST_AHEAD >= 16

    def test_on_one_core_nothing_is_read_before_it_is_needed(self, example_clips):
        made, reciter = captioner(workers=1)
        read, waveform = itertools.count(), load_sound(example_clips[0])
        threads = threading.active_count()
        stream = made.caption_many(waveform for _ in read)
        found = [next(stream) for _ in range(1 + 4 + 16)]
        assert next(read) == len(found)
        assert threading.active_count() == threads
        assert [len(batch) for batch in reciter.batches] == [1, 4, 16]
        assert found == [captioner()[0].caption(waveform)] * len(found)


def test_measured_clues_are_read_where_the_model_was_trained_with_them(example_clips):
    (plain, heard), (acting, heard_act) = captioner(), captioner(act_mode="measured")
    plain.caption(example_clips)
    acting.caption(example_clips)
    speech = VOCABULARY.speech_open_id
    without, prompts = (
        [prompt for batch in one.batches for prompt in batch] for one in (heard, heard_act)
    )
    assert all(p[1] == speech for p in without)
    assert [p[p.index(speech) :] for p in prompts] == [p[1:] for p in without]
    acts = [VOCABULARY.decode(p[: p.index(speech)]) for p in prompts]
    assert any(act.startswith("Feeling ") for act in acts)


def test_the_instruction_is_in_the_language_asked_for(example_clips):
    made, reciter = captioner("他说话很快。")
    caption = made.caption(example_clips[0], language="zh")
    [[prompt]] = reciter.batches
    instruction = prompt[prompt.index(VOCABULARY.speech_close_id) + 1 :]
    assert VOCABULARY.decode(instruction) == "用一句话描述说话人的情感和声音。\n"
    assert caption.language == "zh"
    assert [evidence.clue.trait for evidence in caption.evidence][-1] == "pace"


@pytest.mark.parametrize(
    ("emotions", "worse", "better"),
    [
        ({}, ("She sounds angry.", -1.1), ("She sounds sad.", -1.0)),
        # 0.1 nats a token for sad against 0.1 * ln(0.8 / 0.1) = 0.21 for angry.
        ({"angry": 0.8, "sad": 0.1}, ("She sounds sad.", -1.0), ("She sounds angry.", -1.1)),
        # ... but 0.1 * ln(0.5 / 0.4) = 0.02 is too little.
        ({"angry": 0.5, "sad": 0.4}, ("She sounds angry.", -1.1), ("She sounds sad.", -1.0)),
        # What the signal contradicts costs 0.1.
        ({}, ("She speaks slowly.", -1.0), ("She speaks fast.", -1.05)),
        # Naming no emotion is no way round the readout.
        ({"sad": 0.9}, ("She is speaking.", -1.0), ("She sounds sad.", -1.2)),
    ],
)
def test_reranking_by_model_readout_and_signal(emotions, worse, better):
    pace = Fact("pace_syllables_per_s", 7.0, "1/s", 0.9)
    tokens = SpeechTokens(np.array([[1, 2]]), {"emotion": emotions} if emotions else {})
    speech = PreparedSpeech(3.0, None, Facts(3.0, 2.5, MappingProxyType({pace.name: pace})), tokens)
    given = [
        CaptionHypothesis(text, Hypothesis.of(tuple(range(10)), mean * 10, 1.0))
        for text, mean in (worse, better)
    ]
    assert rerank(given, speech, language="en") == given[::-1]


@pytest.mark.parametrize(
    ("emotions", "named", "expected"),
    [
        ({}, "sad", 0.0),
        ({"sad": 0.5}, "sad", math.log(0.5)),
        ({"sad": 0.5}, None, math.log(0.01)),
        ({"sad": 0.001}, "sad", math.log(0.01)),
    ],
)
def test_readout_probabilities_have_a_floor(emotions, named, expected):
    assert readout_log_probability(emotions, named) == pytest.approx(expected)


class TestLongRecordings:
    @pytest.mark.parametrize(
        ("segments", "window"),
        [
            ([], (0.0, 4.0)),
            ([(0.0, 1.5), (5.0, 7.0), (8.0, 9.5)], (5.0, 9.0)),  # 3 s of speech, elsewhere less
            ([(9.0, 10.0)], (6.0, 10.0)),
            ([(0.0, 1.0)], (0.0, 4.0)),
        ],
    )
    def test_the_four_seconds_of_ten_with_most_speech(self, segments, window):
        assert densest_window(segments, 10.0, 4.0) == window

    def test_no_stretch_of_the_grid_has_more(self):
        draw = np.random.default_rng(4)
        for _ in range(20):
            segments = np.sort(draw.uniform(0, 60, 12)).reshape(-1, 2)

            def covered(start: float, segments=segments) -> float:
                inside = segments.clip(start, start + 7.0)
                return float((inside[:, 1] - inside[:, 0]).sum())

            best = max(covered(start) for start in np.arange(0, 53.01, 0.25))
            assert covered(densest_window(segments.tolist(), 60.0, 7.0)[0]) >= best - 1e-9

    def test_the_record_and_the_log_name_the_part(self, example_clips, caplog):
        speech = load_sound(example_clips[0]).samples
        quiet = np.zeros(16_000 * 5, np.float32)
        longest_s = len(speech) / 16_000
        made, reciter = captioner(longest_s=longest_s)
        caption = made.caption(Waveform(np.concatenate([quiet, speech, quiet]), "long.wav"))
        assert caption.duration_s == pytest.approx(10 + longest_s)
        assert caption.part_s is not None
        assert caption.part_s[0] == pytest.approx(5.0, abs=1.0)
        assert caption.part_s[1] - caption.part_s[0] == pytest.approx(longest_s)
        assert "long.wav" in caplog.text
        [[prompt]] = reciter.batches
        tokens = prompt.index(VOCABULARY.speech_close_id) - prompt.index(VOCABULARY.speech_open_id)
        assert tokens - 1 == len(speech) // 1280


class TestFindingModels:
    @pytest.mark.parametrize(
        ("name", "options", "error", "said"),
        [
            ("mimi", {}, UnknownNameError, "did you mean 'mini'"),
            ("mini", {"runtime": "tensorflow"}, UnknownNameError, "runtime"),
            ("mini", {"threads": -1}, RecipeError, "threads is -1; give a number of cores"),
            (Path("none"), {}, MissingModelError, "no such model folder"),
            (Path(), {}, MissingModelError, r"aligncap\.json"),
            ("nobody/aligncap-kd", {}, MissingModelError, "hf download nobody/aligncap-kd"),
            *(
                (path, {}, MissingModelError, r"check the path$")
                for path in ("./org/name", "/org/name", "a/b/c", "org/../name")
            ),
        ],
    )
    def test_what_is_not_there_is_named(self, name, options, error, said, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(error, match=said) as caught:
            aligncap.load(name, **options)
        assert "\n" not in str(caught.value)

    def test_by_name_and_by_folder_which_comes_first(self, tmp_path, monkeypatch):
        (tmp_path / "org" / "name").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert find_model("org/name") == Path("org/name")
        assert find_model(tmp_path) == tmp_path
        if MODELS["mini"].is_dir():
            assert find_model("mini") == MODELS["mini"]
        else:
            with pytest.raises(MissingModelError, match="mini"):
                aligncap.load("mini")


def test_the_version_is_the_one_of_the_package(repository: Path):
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    assert project.get("version", aligncap.__version__) == aligncap.__version__
    assert sorted(dir(aligncap)) == sorted(aligncap.__all__)
    with pytest.raises(AttributeError, match="captions"):
        aligncap.captions  # noqa: B018


def test_the_captioners_modules_bring_no_torch():
    code = (
        "import sys\n"
        "from aligncap.captioner import captioner, checkpoint, prompts, runtimes, vocabulary\n"
        "print({'torch', 'transformers', 'peft', 'ctranslate2'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
