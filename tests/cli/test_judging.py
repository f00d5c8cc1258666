"""The judge of the command line."""

from pathlib import Path

import pytest

from aligncap.cli.console import Console
from aligncap.cli.evaluate import judge_settings
from aligncap.errors import RecipeError

HOSTED = "https://api.openai.com/v1"
LOCAL = "http://localhost:8000/v1"


def settings_for(url: str | None, **environment: str):
    found = judge_settings(Console(environment=environment), "small", url, None, None)
    assert found
    return found


def test_no_model_is_no_judge() -> None:
    assert judge_settings(Console(environment={}), None, None, Path("x"), None) is None


def test_an_address_without_a_model_says_what_to_give() -> None:
    with pytest.raises(RecipeError, match="give --judge-model too"):
        judge_settings(Console(environment={}), None, LOCAL, None, None)


def test_options_arrive(tmp_path: Path) -> None:
    found = judge_settings(Console(environment={}), "small", None, tmp_path / "c", tmp_path)
    assert found
    assert (found.model, found.url, found.cache, found.prompts) == (
        "small", None, tmp_path / "c", tmp_path
    )  # fmt: skip


@pytest.mark.parametrize(
    ("url", "environment", "key"),
    [
        (LOCAL, {}, None),
        (LOCAL, {"OPENAI_API_KEY": "theirs"}, None),
        ("https://api.openai.com.other.invalid/v1", {"OPENAI_API_KEY": "theirs"}, None),
        (HOSTED, {"OPENAI_API_KEY": "theirs\n"}, "theirs"),
        (HOSTED, {"OPENAI_API_KEY": "theirs", "ALIGNCAP_JUDGE_KEY": "ours"}, "ours"),
        (LOCAL, {"ALIGNCAP_JUDGE_KEY": "ours"}, "ours"),
        (None, {"ALIGNCAP_JUDGE_KEY": ""}, None),
    ],
)
def test_a_key_goes_where_it_belongs(
    url: str | None, environment: dict[str, str], key: str | None
) -> None:
    assert settings_for(url, **environment).key == key


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        (HOSTED, {"https_proxy": "http://p:1"}, "http://p:1"),
        (HOSTED, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (HOSTED, {"https_proxy": "p:1"}, "http://p:1"),
        (HOSTED, {"http_proxy": "http://p:1"}, None),
        (LOCAL, {"http_proxy": "http://p:1"}, None),
        (None, {"http_proxy": "http://p:1"}, None),
    ],
)
def test_a_proxy_is_not_in_the_way_of_a_server_of_ones_own(
    url: str | None, environment: dict[str, str], proxy: str | None
) -> None:
    assert settings_for(url, **environment).proxy == proxy
