"""One vocabulary for text and speech (decision 3): text ids first, then ours, then speech.

[0, base_size)                  what the backbone's tokenizer came with
[base_size, text_vocab_size)    bos, eos or pad, where that tokenizer has none
text_vocab_size, +1             <speech> and </speech>
[speech_base, size)             speech: speech_base + codebook * codebook_size + code

`train_text_tokenizer` makes a text tokenizer of our own, for models small enough to be trained from
scratch.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from aligncap.errors import DataError, RecipeError
from aligncap.foreign import AGAIN, read_table, reading
from aligncap.values import SpeechTokens

BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>", "</s>")
EOS_NAMES = ("</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<eos>", "<|endoftext|>")
PAD_NAMES = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "</s>")


STOP_CHARACTERS = ".。!?！？"
"""A caption ends with a token that contains one of these (decision 8)."""

SPEECH_OPEN = "<speech>"
SPEECH_CLOSE = "</speech>"

SPECIALS = ("<pad>", "<s>", "</s>")
MOST_IDS = 2**20
"""Of any vocabulary; the largest of published models have a quarter of it."""

SMALLEST = 256 + len(SPECIALS) + len(STOP_CHARACTERS)
"""Every byte is a token, so that any text can be written."""


def read_tokenizer(path: Path) -> Tokenizer:
    """The `tokenizers.Tokenizer` of a tokenizer.json; DataError where it cannot be read."""
    content = read_table(path, hint=AGAIN)
    if not isinstance(content.get("model"), dict):
        raise DataError(f"{path}: is no tokenizer.json; save the model again")
    with reading(path, hint=AGAIN):
        tokenizer = Tokenizer.from_str(json.dumps(content))
        if not _id_count(tokenizer) <= MOST_IDS:
            raise ValueError(f"its ids go up to {_id_count(tokenizer) - 1:,}")
    return tokenizer


def _id_count(tokenizer: Tokenizer) -> int:
    """Ids from 0 to the last one in use; not the number of tokens, some vocabularies have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


@dataclass(frozen=True, slots=True)
class VocabularyShape:
    """What a tokenizer.json does not say about a vocabulary; kept in aligncap.json."""

    codebooks: int
    """Codebooks of the speech tokenizer (1 in the paper)."""
    codebook_size: int
    """Entries of one codebook."""
    bos: str
    eos: str
    pad: str
    base_size: int
    """Ids that the backbone's own tokenizer had; all later rows are new to the backbone."""

    def __post_init__(self) -> None:
        if (
            self.codebooks < 1
            or self.codebook_size < 1
            or self.base_size < 0
            or self.base_size + self.codebooks * self.codebook_size > MOST_IDS
        ):
            raise DataError(
                f"vocabulary: {self.codebooks} codebooks of {self.codebook_size} entries over "
                f"{self.base_size} text ids; sizes are 1 or more, and {MOST_IDS:,} ids at most"
            )


class Vocabulary:
    """Text and speech as ids of one sequence; wraps a `tokenizers.Tokenizer`."""

    def __init__(self, tokenizer: Tokenizer, shape: VocabularyShape) -> None:
        self.shape = shape
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A caption that happens to contain "</s>" must not end there.
        self._tokenizer.encode_special_tokens = True
        roles = (shape.bos, shape.eos, shape.pad)
        added = [name for name in roles if tokenizer.token_to_id(name) is None]
        # dict.fromkeys: in GPT-2 one token has several roles.
        self._tokenizer.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in dict.fromkeys(added)]
        )
        self.text_vocab_size = _id_count(self._tokenizer)
        """Ids [0, text_vocab_size) are text, eos included: KD's softmax runs over them."""
        if any(self._id(name) < shape.base_size for name in added):
            # The library numbers new tokens by count, so into holes, or onto a token that is there.
            raise DataError(
                f"vocabulary: the tokenizer leaves ids unused, so {', '.join(added)} cannot be "
                "added; name tokens that it has as bos, eos and pad"
            )
        if self.text_vocab_size < shape.base_size:
            raise DataError(
                f"vocabulary: tokenizer.json holds {self.text_vocab_size} ids, the model was made "
                f"with {shape.base_size}; put back the tokenizer.json that was saved with it"
            )

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        *,
        codebook_size: int,
        codebooks: int = 1,
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
    ) -> "Vocabulary":
        """A vocabulary over any text tokenizer.

        A role (bos, eos, pad) that is not named is looked for under its usual names, and added
        as a new id where the tokenizer has none.
        """

        def usual(names: Sequence[str]) -> str:
            found = (name for name in names if tokenizer.token_to_id(name) is not None)
            return next(found, names[0])

        shape = VocabularyShape(
            codebooks=codebooks,
            codebook_size=codebook_size,
            bos=bos or usual(BOS_NAMES),
            eos=eos or usual(EOS_NAMES),
            pad=pad or usual(PAD_NAMES),
            base_size=_id_count(tokenizer),
        )
        return cls(tokenizer, shape)

    @classmethod
    def load(cls, path: Path, shape: VocabularyShape) -> "Vocabulary":
        """The vocabulary over a saved tokenizer.json; DataError where it cannot be read."""
        return cls(read_tokenizer(path), shape)

    def with_codes(self, codebooks: int, codebook_size: int) -> "Vocabulary":
        """The same text with the codes of another speech tokenizer."""
        shape = replace(self.shape, codebooks=codebooks, codebook_size=codebook_size)
        return Vocabulary(self._tokenizer, shape)

    def save(self, path: Path) -> None:
        """Write tokenizer.json (text only; the rest is in `shape`)."""
        self._tokenizer.save(str(path))

    @property
    def bos_id(self) -> int:
        """Begins every prompt."""
        return self._id(self.shape.bos)

    @property
    def eos_id(self) -> int:
        """Ends a caption."""
        return self._id(self.shape.eos)

    @property
    def pad_id(self) -> int:
        """Fills ragged batches; never attended to."""
        return self._id(self.shape.pad)

    @property
    def speech_open_id(self) -> int:
        """<speech>, before the first speech token."""
        return self.text_vocab_size

    @property
    def speech_close_id(self) -> int:
        """</speech>, after the last speech token."""
        return self.text_vocab_size + 1

    @property
    def speech_base(self) -> int:
        """The id of code 0 of codebook 0."""
        return self.text_vocab_size + 2

    @property
    def size(self) -> int:
        """All ids: rows that the model's embedding needs."""
        return self.speech_base + self.shape.codebooks * self.shape.codebook_size

    @property
    def new_ids(self) -> range:
        """Ids that are new to the backbone: their embedding rows must be trained."""
        return range(self.shape.base_size, self.size)

    def encode_text(self, text: str) -> list[int]:
        """The ids of a text, nothing added; "</s>" inside a text stays text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bos, eos, pad, markers and speech are left out."""
        text: str = self._tokenizer.decode(
            [i for i in ids if 0 <= i < self.text_vocab_size and i not in self._special],
            skip_special_tokens=False,
        )
        return text

    def speech_ids(self, tokens: SpeechTokens) -> list[int]:
        """Speech as ids, frame by frame; with several codebooks a frame's codes in their order.

        The sequence is `codebooks` times as long as there are frames. DataError where the tokens
        come from another tokenizer than the vocabulary was made for.
        """
        codebooks, size = self.shape.codebooks, self.shape.codebook_size
        codes = tokens.codes
        if codes.shape[0] != codebooks:
            raise DataError(
                f"speech tokens have {codes.shape[0]} codebooks, the vocabulary {codebooks}; "
                "encode with the tokenizer the model was trained with"
            )
        if codes.size and codes.min() < 0:
            raise DataError("speech codes go below 0; encode the audio again")
        if codes.size and codes.max() >= size:
            raise DataError(
                f"speech codes go up to {int(codes.max())}, the vocabulary's codebook has {size} "
                "entries; encode with the tokenizer the model was trained with"
            )
        starts = self.speech_base + size * np.arange(codebooks, dtype=np.int64)[:, None]
        ids: list[int] = (codes + starts).T.ravel().tolist()
        return ids

    def stop_ids(self, characters: str = STOP_CHARACTERS) -> tuple[int, ...]:
        """eos and every token that contains one of the characters (decision 8), ascending."""
        wanted = set(characters)
        found = {i for i, piece in enumerate(self._pieces) if not wanted.isdisjoint(piece)}
        return tuple(sorted((found - self._special) | {self.eos_id}))

    def token_names(self) -> list[str]:
        """A different printable name for each id, in order of ids (a runtime's vocabulary file)."""
        names = [
            self._tokenizer.id_to_token(i) or f"<unused_{i}>" for i in range(self.text_vocab_size)
        ]
        names += [SPEECH_OPEN, SPEECH_CLOSE]
        for codebook in range(self.shape.codebooks):
            names += [f"<speech_{codebook}_{code}>" for code in range(self.shape.codebook_size)]
        return names

    @cached_property
    def _pieces(self) -> list[str]:
        """The text of each text id by itself; bytes that are no character give U+FFFD."""
        pieces: list[str] = self._tokenizer.decode_batch(
            [[i] for i in range(self.text_vocab_size)], skip_special_tokens=False
        )
        return pieces

    @cached_property
    def _special(self) -> frozenset[int]:
        """Ids left out of decoded text: bos, eos, pad and all that the tokenizer calls special."""
        added = self._tokenizer.get_added_tokens_decoder()
        special = {number for number, token in added.items() if token.special}
        return frozenset(special | {self.bos_id, self.eos_id, self.pad_id})

    def _id(self, name: str) -> int:
        number: int | None = self._tokenizer.token_to_id(name)
        if number is None:
            raise DataError(f"vocabulary: tokenizer.json has no token {name!r}; save it again")
        return number


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
    # Trained on the text between them; an id that is added later is never merged into others.
    between = (piece for text in texts for piece in re.split(f"[{''.join(wide)}]", text) if piece)
    tokenizer.train_from_iterator(between, trainer)
    tokenizer.add_tokens([AddedToken(character, normalized=False) for character in wide])
    return tokenizer
