"""AES_c and AES_s as metrics."""

import json
from pathlib import Path

import numpy as np
import pytest

from aligncap.errors import DataError, JudgeError, MissingModelError, UnknownNameError
from aligncap.metrics.aes import BUILT_IN, PLACEHOLDERS, load_template
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions, open_metric
from aligncap.values import LANGUAGES
from metrics.judge.fakes import FakeModel, clip, judge_of, rating


def test_the_value_is_the_mean_rating(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: rating(2 if "voice 0" in prompt else 9))
    with judge_of(model, tmp_path) as judge:
        metric = open_metric("aes-c", MetricOptions(judge=judge))
        statistics = metric.measure([clip(0), clip(1), clip(2), clip(3)])
    assert statistics.value == (2 + 9 + 9 + 9) / 4
    np.testing.assert_array_equal(statistics.clip_values, [2.0, 9.0, 9.0, 9.0])


def test_a_clip_that_could_not_be_rated_counts_for_nothing(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: "no" if "voice 1" in prompt else rating(8))
    with judge_of(model, tmp_path) as judge:
        metric = open_metric("aes-s", MetricOptions(judge=judge))
        statistics = metric.measure([clip(0), clip(1), clip(2)])
        assert [failure.id for failure in judge.report.failures] == ["clip1"]
    assert statistics.value == 8.0
    assert np.isnan(statistics.clip_values).tolist() == [False, True, False]


def test_nothing_said_has_the_lowest_rating_and_is_not_asked_about(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: rating(7))
    with judge_of(model, tmp_path) as judge:
        metric = open_metric("aes-c", MetricOptions(judge=judge))
        assert metric.measure([clip(0, " "), clip(1, "")]).value == 1.0
        assert model.prompts == []
        assert metric.measure([clip(0, ""), clip(1)]).value == 4.0
    assert len(model.prompts) == 1


def test_a_judge_that_rates_no_clip_is_an_error(tmp_path: Path) -> None:
    with judge_of(FakeModel(lambda prompt: "I am a parrot"), tmp_path) as judge:
        metric = open_metric("aes-c", MetricOptions(judge=judge))
        with pytest.raises(JudgeError, match=r"fake could rate none of 2 clips .*no whole JSON"):
            metric.measure([clip(0), clip(1)])


def test_without_a_judge_the_line_says_what_to_give() -> None:
    with pytest.raises(MissingModelError, match="give --judge-url and --judge-model for a server"):
        open_metric("aes-c", MetricOptions())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["aes-c", "aes-s"])
def test_the_prompt_shows_prediction_and_every_reference(
    tmp_path: Path, name: str, language: str
) -> None:
    model = FakeModel(lambda prompt: rating(7))
    one = ScoredClip("a", '声音"低沉"', ("他很平静", "a calm man"))
    with judge_of(model, tmp_path) as judge:
        open_metric(name, MetricOptions(judge=judge, language=language)).measure([one])
    (prompt,) = model.prompts
    assert json.dumps(one.hypothesis, ensure_ascii=False) in prompt
    assert json.dumps(list(one.references), ensure_ascii=False) in prompt
    assert "$" not in prompt
    assert ("请" in prompt) == (language == "zh")


def test_the_signature_names_judge_prompt_settings_and_scale(tmp_path: Path) -> None:
    variants = set()
    for kind in ("one", "o|t her"):
        with judge_of(FakeModel(str, name=kind), tmp_path) as judge:
            for name in ("aes-c", "aes-s"):
                for language in LANGUAGES:
                    options = MetricOptions(judge=judge, language=language)
                    variants.add(open_metric(name, options).variant)
    assert len(variants) == 8
    parts = min(variants).split("|")
    assert [part.partition(":")[0] for part in parts] == [
        "aes-c", "judge", "prompt", "settings", "scale"
    ]  # fmt: skip
    assert parts[1] == "judge:o_t_her"
    assert parts[2].startswith("prompt:en-")
    assert parts[4] == "scale:1-10"


def test_prompts_of_ones_own_are_used_and_signed(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "aes-c.en.txt").write_text("Costs $$1. $references / $prediction", "utf-8")
    model = FakeModel(lambda prompt: rating(7))
    with judge_of(model, tmp_path, prompts=prompts) as judge:
        own = open_metric("aes-c", MetricOptions(judge=judge))
        own.measure([clip(0)])
        ours = open_metric("aes-s", MetricOptions(judge=judge)).variant
    assert model.prompts == ['Costs $1. ["voice 0 is low and slow"] / "voice 0 is low"']
    with judge_of(model, tmp_path) as judge:
        assert open_metric("aes-c", MetricOptions(judge=judge)).variant != own.variant
        assert open_metric("aes-s", MetricOptions(judge=judge)).variant == ours


@pytest.mark.parametrize(
    ("file", "text", "error", "line"),
    [
        ("aes-c.en.txt", "$prediction", DataError, r"must have the places \$prediction, \$ref"),
        ("aes-c.en.txt", "$prediction $references $x", DataError, "and has"),
        ("aes-c.en.txt", "1 $ for $prediction $references", DataError, "write '\\$\\$'"),
        ("aes_c.en.txt", "$prediction $references", UnknownNameError, "did you mean 'aes-c.en"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_refused(
    tmp_path: Path, file: str, text: str, error: type[Exception], line: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(error, match=line) as caught:
        load_template("aes-c", "en", tmp_path)
    assert file in str(caught.value)


def test_a_folder_of_prompts_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder of prompts"):
        load_template("aes-c", "en", tmp_path / "none")


def test_every_prompt_is_there_in_every_language() -> None:
    names = {f"{kind}.{language}.txt" for kind in PLACEHOLDERS for language in LANGUAGES}
    assert {path.name for path in BUILT_IN.glob("*")} == names
    for kind in PLACEHOLDERS:
        for language in LANGUAGES:
            assert load_template(kind, language).text
