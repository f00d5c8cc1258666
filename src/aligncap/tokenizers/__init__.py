"""The table of speech tokenizers; the library behind a name is imported when it is opened.

Speech to discrete tokens: the tokenizers, by name, and the store that keeps a corpus's tokens.

`open_tokenizer` opens SpeechTokenizer (the paper's, §3.1), Mimi or the built-in tokenizer;
`TokenCache` keeps what they give, so that a corpus is encoded once. torch is imported by the
tokenizers that need it, when they are opened.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, cast

from aligncap.errors import MissingModelError, UnknownNameError
from aligncap.values import SpeechTokenizer

TOKENIZERS = {
    "builtin": "aligncap.tokenizers.builtin:open_builtin",
    "mimi": "aligncap.tokenizers.mimi:open_mimi",
    "speechtokenizer": "aligncap.tokenizers.speechtokenizer:open_speechtokenizer",
}
"""Name → module and its function (path, **options) -> SpeechTokenizer."""


_INSTALL = {"builtin": "aligncap"}
"""What to install for a tokenizer, where it is not the train extra."""


def open_tokenizer(name: str, path: str | Path | None = None, **options: Any) -> SpeechTokenizer:
    """The speech tokenizer of that name, its weights read from `path`.

    `options` are the tokenizer's own, such as `codebooks=8` or `device="cuda"`. Raises
    UnknownNameError for a name or an option that is not known, MissingModelError for weights or a
    library that are not there (the message says what to get), RecipeError for an option out of
    range.
    """
    if name not in TOKENIZERS:
        raise UnknownNameError("speech tokenizer", name, TOKENIZERS)
    opener = _opener_of(name)
    known = [
        parameter.name
        for parameter in signature(opener).parameters.values()
        if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of the {name} tokenizer", option, known)
    return cast(SpeechTokenizer, opener(path, **options))


def _opener_of(name: str) -> Callable[..., Any]:
    module, _, function = TOKENIZERS[name].partition(":")
    try:
        opener: Callable[..., Any] = getattr(import_module(module), function)
        return opener
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aligncap"):
            raise
        package = _INSTALL.get(name, "'aligncap[train]'")
        raise MissingModelError(
            f"the {name} tokenizer needs {error.name}, which is not installed; "
            f"run: pip install {package}"
        ) from error
