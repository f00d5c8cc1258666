"""A text tokenizer of our own, for models small enough to be trained whole."""

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from aligncap.captioner.vocabulary import STOP_CHARACTERS
from aligncap.errors import RecipeError

SPECIALS = ("<pad>", "<s>", "</s>")
SMALLEST = 256 + len(SPECIALS) + len(STOP_CHARACTERS)
"""Every byte is a token, so that any text can be written."""


def train_text_tokenizer(
    texts: Iterable[str], size: int, *, longest_token_bytes: int = 18
) -> Tokenizer:
    """A byte-level BPE of at most `size` ids: <pad> <s> </s> are 0, 1, 2.

    Each stop character that is more than one byte (。 ！ ？) gets an id of its own, so that the
    stop rule sees it. `longest_token_bytes` keeps tokens near the length of a word: Chinese has
    no spaces, and whole clauses would become tokens. RecipeError where size is below `SMALLEST`.
    """
    if size < SMALLEST:
        raise RecipeError(f"text vocabulary of {size} ids is too small; give {SMALLEST} or more")
    wide = [character for character in STOP_CHARACTERS if not character.isascii()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(wide),
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=longest_token_bytes,
        show_progress=False,
    )
    # Learnt from what stands between them; an id that is added later is never merged into others.
    between = (piece for text in texts for piece in re.split(f"[{''.join(wide)}]", text) if piece)
    tokenizer.train_from_iterator(between, trainer)
    tokenizer.add_tokens([AddedToken(character, normalized=False) for character in wide])
    return tokenizer
