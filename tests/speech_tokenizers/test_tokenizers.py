"""Opening a tokenizer by name, and what all of them do alike."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from aligncap.errors import MissingModelError, RecipeError, UnknownNameError
from aligncap.tokenizers import TOKENIZERS, open_tokenizer
from aligncap.values import RATE_HZ, Waveform
from support.speech_tokenizers import noise


def test_an_unknown_name_gets_the_nearest(checkpoint):
    with pytest.raises(UnknownNameError, match="did you mean 'speechtokenizer'"):
        open_tokenizer("speechtokeniser")
    with pytest.raises(UnknownNameError, match="speechtokenizer tokenizer called 'codebook'"):
        open_tokenizer("speechtokenizer", checkpoint, codebook=2)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "aligncap.tokenizers.mimi", raising=False)
    with pytest.raises(MissingModelError, match=r"transformers.*pip install 'aligncap\[train\]'"):
        open_tokenizer("mimi")


def test_every_name_has_its_module_and_the_part_is_imported_without_torch():
    codes, vectors = (
        ["builtin", "frozen-codes", "mimi", "speechtokenizer"],
        ["builtin-features", "frozen-features", "hubert", "joint", "log-mel"],
    )
    assert sorted(TOKENIZERS) == sorted(codes + vectors)
    assert all(find_spec(place.partition(":")[0]) for place in TOKENIZERS.values())
    code = "import sys, aligncap.tokenizers; print({'torch', 'soundfile'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.fixture(params=["speechtokenizer", "mimi"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(name: str, request: pytest.FixtureRequest) -> Path:
    """A small model of random weights."""
    return request.getfixturevalue({"speechtokenizer": "checkpoint", "mimi": "mimi_folder"}[name])


def test_its_properties_and_the_codes_of_silence_and_of_nothing(name, folder):
    tokenizer = open_tokenizer(name, folder, codebooks=3)
    found = (tokenizer.frame_rate_hz, tokenizer.codebook_size, tokenizer.codebooks)
    assert found == {"speechtokenizer": (50.0, 32, 3), "mimi": (12.5, 64, 3)}[name]
    assert tokenizer.name == name
    for seconds in (0, 4):
        silence = Waveform(np.zeros(seconds * RATE_HZ, np.float32))
        assert tokenizer.encode(silence).codes.shape == (3, seconds * tokenizer.frame_rate_hz)


def test_a_smaller_depth_gives_the_first_codebooks_and_another_fingerprint(name, folder):
    deepest = open_tokenizer(name, folder, codebooks=8)
    codes = deepest.encode(noise(RATE_HZ)).codes
    for options, depth in (({}, 1), ({"codebooks": 3}, 3)):
        tokenizer = open_tokenizer(name, folder, **options)
        np.testing.assert_array_equal(tokenizer.encode(noise(RATE_HZ)).codes, codes[:depth])
        assert tokenizer.fingerprint != deepest.fingerprint


@pytest.mark.parametrize(
    "options", [{"codebooks": 0}, {"codebooks": 9}, {"device": "toaster"}, {"device": "cuda:99"}]
)
def test_options_out_of_range_are_refused(name, folder, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        open_tokenizer(name, folder, **options)


@pytest.mark.parametrize("given", [True, False])
def test_without_weights_the_error_says_what_to_download_and_where_to(name, tmp_path, given):
    with pytest.raises(MissingModelError) as caught:
        open_tokenizer(name, tmp_path if given else None)
    message = str(caught.value)
    words = {
        "speechtokenizer": "fnlp/SpeechTokenizer speechtokenizer_hubert_avg SpeechTokenizer.pt",
        "mimi": "kyutai/mimi model.safetensors",
    }[name]
    assert [word for word in (*words.split(), "config.json") if word not in message] == []
    assert "\n" not in message
    assert (str(tmp_path) in message) is given
