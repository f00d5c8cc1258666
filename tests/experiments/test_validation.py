"""The validation report: measures and tables counted by hand over captions nobody generated, the
rival's features and machine, and whether the interval of macro recall covers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from aligncap.clues import clue_of
from aligncap.data.manifest import Utterance
from aligncap.experiments import validation
from aligncap.experiments.validation import LABELLED, Captioned, bootstrap_interval, distinct_line
from aligncap.metrics.claims import macro_recall
from aligncap.metrics.scores import ScoredClip, difference
from aligncap.preference.store import Clip
from aligncap.values import EMOTIONS, RATE_HZ, Baseline, Caption, Evidence, Verdict
from support.preferences import facts_of

LOUD_AND_FAST = facts_of(loudness_db=-15.0, pace_syllables_per_s=6.1)
KNOWN = {
    "a": Clip("a", "", LOUD_AND_FAST, emotion="angry", gender="male").knowledge,
    "b": Clip("b", "", LOUD_AND_FAST, emotion="sad", gender="female").knowledge,
}


def measured(**texts: str) -> dict[str, float]:
    """Of captions of the clips above."""
    clips = [
        ScoredClip(
            name, text, ("A man sounds angry and loud.",), emotion=KNOWN[name].labels["emotion"]
        )
        for name, text in texts.items()
    ]
    metrics = validation.measures(KNOWN, language="en", tokens=lambda text: len(text.split()))
    found = {one.name: one.measure(clips) for one in metrics}
    return {name: one.scale * one.value for name, one in found.items()}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # Six claims: man, angry, loud, slow; woman, happy. The signal can tell of loud and slow.
        (
            {"a": "A man sounds angry and loud, but slow.", "b": "A woman sounds happy."},
            {
                "contradicted by the signal": 50.0,
                "clues a caption": 3.0,
                "contradicted": 100 * 2 / 6,
                "not borne out": 100 * 2 / 6,
                "names an emotion": 100.0,
                "emotion-recall": 50.0,
                "tokens a caption": 6.0,
            },
        ),
        # Nothing bears on its breath.
        ({"a": "A man with a breathy voice."}, {"contradicted": 0.0, "not borne out": 50.0}),
        ({"a": "Somebody speaks."}, {"contradicted by the signal": np.nan}),
    ],
)
def test_claims_are_counted(texts: dict[str, str], expected: dict[str, float]) -> None:
    found = measured(**texts)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_runs_of_a_clip_are_one_clip() -> None:
    """Two runs that say the same are no more evidence than one."""
    metric = validation.OverRuns(validation.Share("long", lambda one: (len(one.hypothesis) > 1, 1)))
    said = {str(n): "x" * (1 + n % 3) for n in range(20)}
    once, twice, none = (
        [ScoredClip(name, text, ("r",)) for name, text in texts.items()]
        for texts in (said, {n: f"{x}\n{x}" for n, x in said.items()}, dict.fromkeys(said, "x"))
    )
    single, double = (difference(metric, clips, none) for clips in (once, twice))
    assert single.delta == double.delta == pytest.approx(65.0)
    assert (single.low, single.high) == (double.low, double.high)


NOBODY: dict[str, list[Captioned]] = {corpus: [] for corpus in LABELLED}


def said(text: str, *claims: tuple[str, str, Verdict], **known: str | None) -> Captioned:
    """A caption of a clip labelled sad and female; its likeliest emotion is sad."""
    language = "zh" if text > "一" else "en"
    evidence = tuple(Evidence(clue_of(trait, meaning), verdict, "measured")
                     for trait, meaning, verdict in claims)  # fmt: skip
    caption = Caption(
        text=text, language=language, duration_s=1.0, evidence=evidence,
        emotion={name: 0.9 if name == "sad" else 0.0 for name in EMOTIONS}, arousal=None,
        valence=None, gender=None, pitch=None, loudness=None, pace=None, confidence=0.9,
        log_probability=-1.0, model="made up",
    )  # fmt: skip
    labels = {"emotion": "sad", "gender": "female"} | known
    return Captioned(Utterance("x", Path("x.wav"), **labels), caption)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("text", ["She sounds sad.", "她听起来很悲伤。"])
def test_the_emotion_is_read_in_the_captions_language(text: str) -> None:
    assert said(text).emotion == "sad"


def test_the_emotion_table_tells_words_from_probabilities_and_lists_rivals() -> None:
    rows = [
        said("She sounds sad."),
        said("She sounds happy."),
        said("She sounds angry.", emotion="angry"),
    ]
    rivals = {("emodb", "rbf"): ["sad", "sad", "angry"]}
    table = validation.emotion_table(dict.fromkeys(LABELLED, rows), rivals, "mini")
    found = {tuple(cells(line)[:2]): cells(line) for line in table[2:]}
    assert len(found) == 2 * len(LABELLED) + 1
    # Named: sad 1 of 2, angry 1 of 1. Likeliest: sad 2 of 2, angry 0 of 1.
    assert found["emodb", "mini, named in its caption"][2:4] == ["3", "0.750"]
    assert found["emodb", "mini, likeliest emotion"][2:4] == ["3", "0.500"]
    assert found["emodb", "eGeMAPS + SVM (rbf)"][3:] == ["1.000", "1.000–1.000"]


def test_clips_are_captioned_beside_their_speakers_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def baselines(self, recordings: list[Path], speakers: list[str | None]) -> list[Baseline]:
            return [Baseline(f"{speaker}", len(recordings)) for speaker in speakers]

        def caption_many(self, sources: list[Any], *, language: str) -> list[Caption]:
            given.append([*sources])
            return [said("…").caption for _ in sources]

    given: list[list[Any]] = []
    monkeypatch.setattr(validation.aligncap, "load", lambda _: Fake())
    clips = [Utterance(n, Path(f"{n}.wav"), speaker=f"s{n}") for n in "ab"]
    for per_speaker in (False, True):
        found = validation.caption_all("m", clips, language="en", per_speaker=per_speaker)
        assert [row.utterance for row in found] == clips
    assert given[0] == [one.path for one in clips]
    assert [(one[0], one[1].source) for one in given[1]] == [
        (Path("a.wav"), "sa"), (Path("b.wav"), "sb")
    ]  # fmt: skip


def test_the_report_is_of_captioned_clips_and_lies_where_its_split_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def manifest(path: Path) -> list[Utterance]:
        corpus = path.parent.name
        ids = ("train", "test-1", "test-2", "test-refused")
        return [replace(said("…").utterance, id=one, corpus=corpus) for one in ids]

    def caption_all(_: str, clips: list[Utterance], **__: object) -> list[Captioned]:
        caption = said("She sounds sad.").caption
        return [Captioned(one, caption) for one in clips if one.id != "test-refused"]

    for name, made in {
        "read_manifest": manifest,
        "caption_all": caption_all,
        "split_of": lambda one: one.id.partition("-")[0],
        "functionals": lambda clips, _: np.zeros((len(clips), 88)),
        "svm_answers": lambda *values, kernel: ["sad"] * len(values[2]),
        "find_model": Path,
        "model_fingerprint": lambda _: "f" * 12,
    }.items():
        monkeypatch.setattr(validation, name, made)
    monkeypatch.chdir(tmp_path)
    validation.main(split="test", cache=tmp_path / "cache.npz")
    page = (tmp_path / "docs/results/test.md").read_text("utf-8")
    assert page.startswith("# mini on test speakers\n\nMade by `python -m aligncap.experiments.")
    assert "27 clips of speakers never trained on, 9 of them refused" in page
    assert "| emodb | eGeMAPS + SVM (rbf) | 2 | 1.000 |" in page


def test_a_stated_gender_is_right_or_wrong_and_an_unstated_one_neither() -> None:
    right, wrong = ("gender", "female", Verdict.SUPPORTED), ("gender", "male", Verdict.CONTRADICTED)
    rows = [said("…", right), said("…", right), said("…", wrong), said("…")]
    rows.append(said("…", wrong, gender=None))
    lines = validation.gender_lines({**NOBODY, "ased": rows})
    found = {cells(line)[0]: cells(line)[1:] for line in lines[2:]}
    assert found["ased"] == found["all"] == ["4", "75.0%", "0.667"]
    assert found["nemo"] == ["0", "0.0%", "–"]


def test_claims_are_counted_by_trait_and_verdict() -> None:
    high = ("pitch", "high", Verdict.SUPPORTED)
    rows = [
        said("…", high, ("volume", "loud", Verdict.CANNOT_TELL)),
        said("…", ("pitch", "low", Verdict.CONTRADICTED), high),
        said("…", ("emotion", "sad", Verdict.CONTRADICTED)),
    ]
    found = {cells(line)[0]: cells(line)[1:] for line in validation.claim_lines(rows)[2:]}
    assert found == {
        "pitch": ["3", "66.7%", "33.3%", "0.0%"],
        "volume": ["1", "0.0%", "0.0%", "100.0%"],
        "pace": ["0", "0.0%", "0.0%", "0.0%"],
        "all three": ["4", "50.0%", "25.0%", "25.0%"],
    }


def test_variety_is_counted_over_evenly_chosen_clips() -> None:
    rows = [said(f"Caption {n // 2}.") for n in range(1000)]
    assert distinct_line(rows, "English") == "Distinct captions (English): 500 over 500 clips."
    assert distinct_line(rows[:10], "English") == "Distinct captions (English): 5 over 10 clips."


@pytest.mark.parametrize("kernel", validation.KERNELS)
def test_it_names_what_can_be_told_apart_on_speakers_it_never_heard(kernel: str) -> None:
    chance = np.random.default_rng(0)
    emotions = ["sad", "happy", "angry"] * 20
    people = [
        Utterance(f"{n}", Path("x"), speaker=f"s{n // 12}", emotion=emotion)
        for n, emotion in enumerate(emotions)
    ]
    centres = {"sad": (0, 0), "happy": (9, 0), "angry": (0, 9)}
    values = np.array([chance.normal(centres[one], 1.0) * (1, 100) for one in emotions])
    answers = validation.svm_answers(people[:48], values[:48], values[48:], kernel=kernel)
    assert np.mean([a == b for a, b in zip(answers, emotions[48:], strict=True)]) > 0.9


def test_functionals_are_measured_once(tmp_path: Path) -> None:
    pytest.importorskip("opensmile")
    time_s, people = np.arange(RATE_HZ) / RATE_HZ, []
    for hz in (110, 220):
        people.append(Utterance(str(hz), tmp_path / f"{hz}.wav"))
        sound = sum(np.sin(2 * np.pi * hz * n * time_s) / n for n in range(1, 9))
        soundfile.write(people[-1].path, 0.2 * sound, RATE_HZ)
    cache = tmp_path / "cache" / "egemaps.npz"
    values = validation.functionals(people, cache)
    assert values.shape == (2, 88)
    # The first functional is the mean pitch in semitones above 27.5 Hz.
    np.testing.assert_allclose(values[:, 0], [24, 36], atol=0.5)
    for one in people:
        one.path.unlink()  # what is cached is not read again
    np.testing.assert_array_equal(validation.functionals(people[::-1], cache), values[::-1])


def test_the_interval_covers_the_true_recall_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    truth = ["sad"] * 60 + ["happy"] * 30
    covered = 0
    for trial in range(100):
        right = chance.random(90) < np.array([0.8] * 60 + [0.5] * 30)
        named = [label if hit else None for label, hit in zip(truth, right, strict=True)]
        low, high = bootstrap_interval(truth, named, draws=300, seed=trial)
        assert low <= macro_recall(truth, named) <= high
        covered += low <= (0.8 + 0.5) / 2 <= high
    assert 88 <= covered <= 100
    assert bootstrap_interval(truth, named) == bootstrap_interval(truth, named)
    assert bootstrap_interval(truth, truth) == (1.0, 1.0)  # where nothing varies
