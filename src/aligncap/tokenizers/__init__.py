"""Speech to discrete tokens (§3.1): the tokenizers by name.

`open_tokenizer` opens SpeechTokenizer (the paper's), Mimi or the built-in tokenizer, or a frozen
encoder that gives vectors (`features`); the library behind a name is imported when it is opened.
`cache.TokenCache` keeps the tokens of a corpus.
"""

from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, cast

from aligncap.errors import MissingModelError, UnknownNameError
from aligncap.values import SpeechTokenizer

TOKENIZERS = {
    "builtin": "aligncap.tokenizers.builtin:open_builtin",
    "builtin-features": "aligncap.tokenizers.features:open_builtin_features",
    "frozen-codes": "aligncap.tokenizers.frozen:open_frozen_codes",
    "frozen-features": "aligncap.tokenizers.frozen:open_frozen_features",
    "joint": "aligncap.alignment.joint_features:open_joint",
    "hubert": "aligncap.tokenizers.features:open_hubert",
    "log-mel": "aligncap.tokenizers.features:open_log_mel",
    "mimi": "aligncap.tokenizers.mimi:open_mimi",
    "speechtokenizer": "aligncap.tokenizers.speechtokenizer:open_speechtokenizer",
}
"""Name → module and its function (path, **options) -> SpeechTokenizer."""

KEPT = ("builtin", "builtin-features", "frozen-codes", "frozen-features")
"""Tokenizers that are kept in the folder of a model that hears with them, and beside its rows."""


def open_tokenizer(name: str, path: str | Path | None = None, **options: Any) -> SpeechTokenizer:
    """The speech tokenizer of that name, its weights read from `path`.

    `options` are the tokenizer's own, such as `codebooks=8` or `device="cuda"`. Raises
    UnknownNameError for a name or an option that is not known, MissingModelError for weights or a
    library that are not there (the message says what to get), RecipeError for an option out of
    range.
    """
    if name not in TOKENIZERS:
        raise UnknownNameError("speech tokenizer", name, TOKENIZERS)
    module, _, function = TOKENIZERS[name].partition(":")
    try:
        opener = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aligncap"):
            raise
        raise MissingModelError(
            f"the {name} tokenizer needs {error.name}, which is not installed; "
            "run: pip install 'aligncap[train]'"
        ) from error
    known = [
        parameter.name
        for parameter in signature(opener).parameters.values()
        if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of the {name} tokenizer", option, known)
    return cast(SpeechTokenizer, opener(path, **options))
