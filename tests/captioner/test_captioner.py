"""From sound to caption: one recording or many, good ones and bad ones."""

import itertools
import math
import subprocess
import sys
import tomllib
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import soundfile

import aligncap
from aligncap.audio import load as load_sound
from aligncap.captioner.captioner import (
    LARGEST_BATCH,
    Captioner,
    CaptionGenerator,
    CaptionHypothesis,
    PreparedSpeech,
    Preprocessor,
    densest_window,
    readout_log_probability,
    rerank,
)
from aligncap.captioner.checkpoint import MODELS, find_model
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.errors import (
    AlignCapError,
    AudioError,
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


def silence(duration_s: float = 2.0) -> Waveform:
    return Waveform(np.zeros(int(16_000 * duration_s), np.float32), "silence")


def test_a_file_a_waveform_and_an_array_are_captioned_alike(example_clips):
    made, reciter = captioner()
    clip = example_clips[0]
    samples, rate_hz = soundfile.read(clip)
    waveform = load_sound(clip)
    captions = [
        made.caption(str(clip)),
        made.caption(clip),
        made.caption(waveform),
        made.caption(waveform.samples, rate_hz=16_000),
    ]
    assert all(caption == captions[0] for caption in captions)
    assert len({batch[0] for batch in reciter.batches}) == 1
    from_rate = made.caption(samples, rate_hz=rate_hz)
    assert from_rate.duration_s == pytest.approx(captions[0].duration_s, abs=0.01)


def test_a_record_says_what_is_known(example_clips):
    made, _ = captioner()
    caption = made.caption(example_clips[0])
    assert caption.text == SAID[0]
    assert caption.model == "tiny"
    assert caption.candidates == ()
    assert caption.part_s is None
    assert caption.log_probability == pytest.approx(-1.0 / len(VOCABULARY.encode_text(SAID[0])))
    judged = {(e.clue.trait, e.clue.meaning): e.verdict for e in caption.evidence}
    assert judged["emotion", "neutral"] is Verdict.CANNOT_TELL
    assert {("pace", "slow"), ("pitch", "low"), ("gender", "female")} <= set(judged)
    assert all(evidence.measurement for evidence in caption.evidence)
    assert caption.arousal is not None
    assert caption.arousal < 0


def test_how_sure_the_beams_are_together(example_clips):
    """Calm e^-1, sad e^-2, angry e^-3 of what is named; neutral is what calm stands for."""
    made, _ = captioner()
    caption = made.caption(example_clips[0])
    weights = np.exp([-1.0, -2.0, -3.0])
    expected = dict(zip(("neutral", "sad", "angry"), weights / weights.sum(), strict=True))
    assert caption.emotion == pytest.approx({name: expected.get(name, 0.0) for name in EMOTIONS})
    assert caption.confidence == pytest.approx(expected["neutral"])


def test_the_tokenizers_own_heads_come_first(example_clips):
    heads = {"emotion": {"sad": 0.75, "neutral": 0.25}}
    made, _ = captioner(tokenizer=LoudnessTokenizer(readout=heads))
    caption = made.caption(example_clips[0])
    assert caption.emotion == {name: heads["emotion"].get(name, 0.0) for name in EMOTIONS}
    assert caption.confidence == 0.25


def test_a_caption_that_names_no_emotion_has_no_confidence(example_clips):
    made, _ = captioner("A woman speaks.")
    caption = made.caption(example_clips[0])
    assert caption.confidence == 0.0
    assert sum(caption.emotion.values()) == pytest.approx(1.0)


def test_without_evidence_nothing_is_judged(example_clips):
    made, _ = captioner()
    assert made.caption(example_clips[0], evidence=False).evidence == ()


def test_candidates_are_the_others_each_once(example_clips):
    made, _ = captioner(SAID[0], SAID[0], SAID[1], SAID[2])
    assert made.caption(example_clips[0], candidates=4).candidates == (SAID[1], SAID[2])
    assert made.caption(example_clips[0], candidates=2).candidates == (SAID[1],)


def test_bad_recordings_never_lose_the_others(example_clips, tmp_path):
    made, _ = captioner()
    (tmp_path / "text.wav").write_text("no sound")
    one_sample = Waveform(np.ones(1, np.float32), "one sample")
    nothing = Waveform(np.zeros(0, np.float32), "nothing")
    good = example_clips[:3]
    sources = [good[0], tmp_path / "none.wav", silence(), good[1], one_sample, nothing]
    outcomes = list(made.caption_many([*sources, tmp_path / "text.wav", good[2]]))
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == [
        "Caption",
        "AudioError",
        "NoSpeechError",
        "Caption",
        "NoSpeechError",
        "NoSpeechError",
        "AudioError",
        "Caption",
    ]
    durations = [outcomes[place].duration_s for place in (0, 3, 7)]
    assert durations == [load_sound(clip).duration_s for clip in good]
    assert all("\n" not in str(one) for one in outcomes if isinstance(one, AlignCapError))


def test_of_several_the_first_error_is_raised(example_clips):
    made, _ = captioner()
    with pytest.raises(NoSpeechError, match="silence"):
        made.caption([example_clips[0], silence(), example_clips[1]])
    assert len(made.caption(list(example_clips[:2]))) == 2
    assert made.caption([]) == []


def test_an_array_needs_its_rate():
    with pytest.raises(AudioError, match="rate_hz"):
        captioner()[0].caption(np.zeros(16_000))


def test_what_is_asked_for_is_checked_before_anything_is_read():
    made, _ = captioner()
    with pytest.raises(UnknownNameError, match="language"):
        made.caption_many(["nowhere.wav"], language="fr")
    with pytest.raises(RecipeError, match="candidates"):
        made.caption_many(["nowhere.wav"], candidates=0)


def test_a_stream_is_read_a_little_ahead_in_growing_batches(example_clips):
    made, reciter = captioner(workers=2)
    waveform = load_sound(example_clips[0])
    read = 0

    def endless():
        nonlocal read
        for _ in itertools.repeat(None):
            read += 1
            yield waveform

    stream = made.caption_many(endless())
    next(stream)
    assert read <= 2 + 4
    for _ in itertools.islice(stream, 29):
        pass
    stream.close()
    sizes = [len(batch) for batch in reciter.batches]
    assert sizes == [2, 4, 8, 16]
    assert max(sizes) <= LARGEST_BATCH


def test_measured_clues_are_read_where_the_model_was_trained_with_them(example_clips):
    plain, heard = captioner()
    acting, heard_act = captioner(act_mode="measured")
    for clip in example_clips:
        plain.caption(clip)
        acting.caption(clip)
    speech = VOCABULARY.speech_open_id
    before = [VOCABULARY.decode(p[: p.index(speech)]) for [p] in heard_act.batches]
    after = [p[p.index(speech) :] for [p] in heard_act.batches]
    assert after == [p[p.index(speech) :] for [p] in heard.batches]
    assert all(p[1] == speech for [p] in heard.batches)
    assert any(text.startswith("Feeling ") for text in before)


def test_the_instruction_is_in_the_language_asked_for(example_clips):
    made, reciter = captioner("他说话很快。")
    caption = made.caption(example_clips[0], language="zh")
    [[prompt]] = reciter.batches
    instruction = prompt[prompt.index(VOCABULARY.speech_close_id) + 1 :]
    assert VOCABULARY.decode(instruction) == "用一句话描述说话人的情感和声音。\n"
    assert caption.language == "zh"
    assert [evidence.clue.trait for evidence in caption.evidence][-1] == "pace"


class TestRerank:
    """By hand: model, readout and signal are all taken into account."""

    facts = Facts(
        3.0,
        2.5,
        MappingProxyType({"pace_syllables_per_s": Fact("pace_syllables_per_s", 7.0, "1/s", 0.9)}),
    )

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
    def test_the_order(self, emotions, worse, better):
        readout = {"emotion": emotions} if emotions else {}
        speech = PreparedSpeech(3.0, None, self.facts, SpeechTokens(np.array([[1, 2]]), readout))
        given = [
            CaptionHypothesis(text, Hypothesis.of(tuple(range(10)), mean * 10, 1.0))
            for text, mean in (worse, better)
        ]
        assert rerank(given, speech, language="en") == [given[1], given[0]]

    @pytest.mark.parametrize(
        ("emotions", "named", "expected"),
        [
            ({}, "sad", 0.0),
            ({"sad": 0.5}, "sad", math.log(0.5)),
            ({"sad": 0.5}, None, math.log(0.01)),
            ({"sad": 0.001}, "sad", math.log(0.01)),
        ],
    )
    def test_readout_probabilities_have_a_floor(self, emotions, named, expected):
        assert readout_log_probability(emotions, named) == pytest.approx(expected)


class TestLongRecordings:
    def test_where_nobody_speaks_it_is_the_beginning(self) -> None:
        assert densest_window([], 10.0, 4.0) == (0.0, 4.0)

    def test_the_stretch_with_most_speech_is_found(self) -> None:
        """4 s of 10: from 5.0 on 3 s of speech, anywhere else less."""
        assert densest_window([(0.0, 1.5), (5.0, 7.0), (8.0, 9.5)], 10.0, 4.0) == (5.0, 9.0)

    def test_a_stretch_never_passes_the_ends(self) -> None:
        assert densest_window([(9.0, 10.0)], 10.0, 4.0) == (6.0, 10.0)
        assert densest_window([(0.0, 1.0)], 10.0, 4.0) == (0.0, 4.0)

    def test_no_stretch_of_the_grid_has_more(self) -> None:
        draw = np.random.default_rng(4)
        for _ in range(50):
            edges = np.sort(draw.uniform(0, 60, 12)).reshape(-1, 2).tolist()
            segments = [(start, end) for start, end in edges]
            found = densest_window(segments, 60.0, 7.0)

            def covered(start: float, segments=segments) -> float:
                grid = np.linspace(start, start + 7.0, 7001)
                return float(sum(((grid >= a) & (grid < b)).mean() for a, b in segments))

            best = max(covered(start) for start in np.arange(0, 53.01, 0.25))
            assert covered(found[0]) >= best - 0.01

    def test_the_record_and_the_log_name_the_part(self, example_clips, caplog) -> None:
        speech = load_sound(example_clips[0]).samples
        quiet = np.zeros(16_000 * 5, np.float32)
        long = Waveform(np.concatenate([quiet, speech, quiet]), "long.wav")
        longest_s = len(speech) / 16_000
        made, reciter = captioner(longest_s=longest_s)
        caption = made.caption(long)
        assert caption.duration_s == pytest.approx(10 + longest_s)
        assert caption.part_s is not None
        assert caption.part_s[0] == pytest.approx(5.0, abs=1.0)
        assert caption.part_s[1] - caption.part_s[0] == pytest.approx(longest_s)
        assert "long.wav" in caplog.text
        [[prompt]] = reciter.batches
        tokens = prompt.index(VOCABULARY.speech_close_id) - prompt.index(VOCABULARY.speech_open_id)
        assert tokens - 1 == len(speech) // 1280


def test_the_package_opens_models_by_name_and_folder(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="did you mean 'mini'"):
        aligncap.load("mimi")
    with pytest.raises(UnknownNameError, match="runtime"):
        aligncap.load("mini", runtime="tensorflow")
    with pytest.raises(MissingModelError, match="no such model folder"):
        aligncap.load(tmp_path / "none")
    with pytest.raises(MissingModelError, match=r"aligncap\.json"):
        aligncap.load(tmp_path)
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


def test_a_name_on_the_hub_that_is_not_here_says_what_to_fetch() -> None:
    with pytest.raises(MissingModelError, match="hf download nobody/aligncap-kd") as caught:
        find_model("nobody/aligncap-kd")
    assert "\n" not in str(caught.value)


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model("org/name") == Path("org/name")


@pytest.mark.parametrize("name", ["./org/name", "/org/name", "a/b/c", "org/../name"])
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(MissingModelError, match=r"check the path$"):
        find_model(name)


def test_the_captioners_modules_bring_no_torch():
    code = (
        "import sys\n"
        "from aligncap.captioner import captioner, checkpoint, prompts, runtimes, vocabulary\n"
        "print({'torch', 'transformers', 'peft', 'ctranslate2'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
