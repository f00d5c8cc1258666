"""Chinese captions as a sequence of known words, by longest match in both directions."""

import re
from collections.abc import Iterator

from aligncap.clues.vocabulary import Vocabulary, Word, vocabulary

PIECE = re.compile(r"[，,]|[。；;！!？?：:.…\n（）()“”\"—]+|[^，,。；;！!？?：:.…\n（）()“”\"—]+")
COMMAS = frozenset("，,")
STOPS = frozenset('。；;！!？?：:.…\n（）()“”"—')
COMMA = Word(text="，", kind=",")
STOP = Word(text="。", kind=";")
OTHER = Word(text="")


def words_of(text: str) -> list[Word]:
    """The words of a Chinese sentence; a run of unknown characters is one word of kind "o"."""
    known = vocabulary("zh")
    words: list[Word] = []
    for piece in PIECE.findall(text):
        if piece[0] in COMMAS:
            words.append(COMMA)
        elif piece[0] in STOPS:
            words.append(STOP)
        else:
            words += _split(piece, known)
    return words


def _split(piece: str, known: Vocabulary) -> list[Word]:
    """The better of two splits: fewer characters left over, then fewer words.

    Where they are equally good the one from the end is right more often: 和 | 缓慢, not 和缓 | 慢.
    """
    forward = list(_forward(piece, known))
    backward = list(_backward(piece, known))[::-1]
    best = forward if _cost(forward) < _cost(backward) else backward
    return list(_joined(best))


def _cost(words: list[Word]) -> tuple[int, int]:
    return sum(word is OTHER for word in words), len(words)


def _forward(piece: str, known: Vocabulary) -> Iterator[Word]:
    at = 0
    while at < len(piece):
        for length in range(min(known.first.get(piece[at], 0), len(piece) - at), 0, -1):
            word = known.words.get(piece[at : at + length])
            if word is not None:
                yield word
                at += length
                break
        else:
            yield OTHER
            at += 1


def _backward(piece: str, known: Vocabulary) -> Iterator[Word]:
    end = len(piece)
    while end > 0:
        for length in range(min(known.last.get(piece[end - 1], 0), end), 0, -1):
            word = known.words.get(piece[end - length : end])
            if word is not None:
                yield word
                end -= length
                break
        else:
            yield OTHER
            end -= 1


def _joined(words: list[Word]) -> Iterator[Word]:
    """Runs of unknown characters as one word."""
    previous: Word | None = None
    for word in words:
        if word is not OTHER or previous is not OTHER:
            yield word
        previous = word
