"""Sections of the stages' recipes: what is out of range is named."""

from pathlib import Path

import pytest

from aligncap.alignment.examples import BatchSettings, DataSettings, StudentSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.kd import LossSettings, TeacherSettings, WarmupSettings
from aligncap.captioner.model import AdapterSettings
from aligncap.errors import RecipeError, UnknownNameError
from aligncap.training.settings import FitSettings

HERE = (Path("rows.jsonl"),)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DataSettings, {"rows": ()}, r"rows is \(\), must be a list of at least 1"),
        (DataSettings, {"rows": HERE, "balance": 1.5}, r"balance is 1\.5"),
        (DataSettings, {"rows": HERE, "rarity": -0.5}, r"rarity is -0\.5"),
        (DataSettings, {"rows": HERE, "languages": {"en": 0.0}}, "no language"),
        (DataSettings, {"rows": HERE, "languages": {"fr": 1.0}}, "'fr'"),
        (BatchSettings, {"captions": 0}, "captions is 0"),
        (ModelSettings, {"start": Path("a"), "base": "b"}, "not both"),
        (ModelSettings, {"lora": AdapterSettings()}, "give start or base"),
        (ModelSettings, {"start": Path("a"), "dtype": "bfloat16"}, "too coarse"),
        (ModelSettings, {"dtype": "float23"}, "'float32'"),
        (StudentSettings, {"act_mode": "measure"}, "'measured'"),
        (StudentSettings, {"speech_dropout": 1.0}, r"speech_dropout is 1\.0"),
        (TeacherSettings, {"prompt": "act+sen"}, r"'act\+sem'"),
        (TeacherSettings, {"temperature": 0.0}, r"temperature is 0\.0"),
        (LossSettings, {"kl_weight": 0.0}, "both 0"),
        (LossSettings, {"ce_weight": -1.0}, "must be 0 or more"),
    ],
)
def test_a_setting_out_of_range_is_named(
    kind: type, values: dict[str, object], message: str
) -> None:
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        kind(**values)


@pytest.mark.parametrize("prompts", [{"actt": 1.0}, {"act": 0.0}, {"act": -1.0}, {}])
def test_a_warm_up_reads_something(prompts: dict[str, float]) -> None:
    training = FitSettings(steps=1, learning_rate=1.0)
    with pytest.raises((RecipeError, UnknownNameError), match="prompt"):
        WarmupSettings(data=DataSettings(rows=HERE), training=training, prompts=prompts)
