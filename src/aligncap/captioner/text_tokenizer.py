"""Text tokenizers of language models: their special tokens' names, and what we need of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from aligncap.errors import DataError

BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>", "</s>")
EOS_NAMES = ("</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<eos>", "<|endoftext|>")
PAD_NAMES = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "</s>")


def own_copy(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither cuts nor pads nor takes names of special tokens for them."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    # A caption that happens to contain "</s>" must not end there.
    copy.encode_special_tokens = True
    return copy


def id_count(tokenizer: Tokenizer) -> int:
    """Ids from 0 to the last one in use."""
    # Not the number of tokens: some vocabularies have holes.
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def first_known(tokenizer: Tokenizer, names: Sequence[str]) -> str:
    """The first of the names that the tokenizer has, or else the first."""
    known = (name for name in names if tokenizer.token_to_id(name) is not None)
    return next(known, names[0])


def read_tokenizer(path: Path) -> Tokenizer:
    """The `tokenizers.Tokenizer` of a tokenizer.json; DataError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the model again") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise DataError(f"{path}: is no tokenizer.json; save the model again")
    return Tokenizer.from_str(text)
