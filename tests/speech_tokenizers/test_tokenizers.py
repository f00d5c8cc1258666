"""Opening a tokenizer by name."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from aligncap.errors import MissingModelError, UnknownNameError
from aligncap.tokenizers import TOKENIZERS, open_tokenizer


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'speechtokenizer'"):
        open_tokenizer("speechtokeniser")


def test_an_unknown_option_gets_the_nearest(checkpoint):
    with pytest.raises(
        UnknownNameError, match="option of the speechtokenizer tokenizer called 'codebook'"
    ):
        open_tokenizer("speechtokenizer", checkpoint, codebook=2)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "aligncap.tokenizers.mimi", raising=False)
    with pytest.raises(MissingModelError, match=r"transformers.*pip install 'aligncap\[train\]'"):
        open_tokenizer("mimi")


def test_every_name_has_its_module():
    assert sorted(TOKENIZERS) == ["builtin", "mimi", "speechtokenizer"]
    assert all(find_spec(place.partition(":")[0]) for place in TOKENIZERS.values())


def test_the_part_is_imported_without_torch():
    code = (
        "import sys, aligncap.tokenizers; print('torch' in sys.modules, 'soundfile' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
