"""Chinese captions as a sequence of known words, by longest match over the vocabulary."""

from collections.abc import Iterator

from aligncap.clues.vocabulary import Vocabulary, Word, vocabulary

COMMAS = frozenset("，,")
STOPS = frozenset('。；;！!？?：:.…\n（）()“”"—')
COMMA = Word(text="，", kind=",")
STOP = Word(text="。", kind=";")
OTHER = Word(text="")


def words_of(text: str) -> list[Word]:
    """The words of a Chinese sentence; a run of unknown characters is one word of kind "o"."""
    return list(_match(text, vocabulary("zh")))


def _match(text: str, known: Vocabulary) -> Iterator[Word]:
    at, unknown = 0, False
    while at < len(text):
        word = _longest(text, at, known)
        if word is None:
            character = text[at]
            at += 1
            if character in COMMAS or character in STOPS:
                yield COMMA if character in COMMAS else STOP
                unknown = False
            elif not character.isspace() and not unknown:
                yield OTHER
                unknown = True
        else:
            yield word
            at += len(word.text)
            unknown = False


def _longest(text: str, at: int, known: Vocabulary) -> Word | None:
    for length in range(known.longest.get(text[at], 0), 0, -1):
        word = known.words.get(text[at : at + length])
        if word is not None:
            return word
    return None
