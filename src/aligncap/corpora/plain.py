"""Plain English captions: an emotion and who feels it, in the words of the acoustic prompt.

A language model that begins with captions full of synonyms may learn to write them without reading
its clues at all (docs/lab-notes.md). From a few hundred steps with these among them it learns what
a clue is for; every synonym is then learnt as another word for a clue it knows.
"""

from aligncap.clues import clue_of

_WHO = {"female": ("woman", "She"), "male": ("man", "He")}


def plain_captions(emotion: str, gender: str | None) -> tuple[str, ...]:
    """Two or three sentences that say an emotion in its plainest word: "The woman sounds sad." """
    word = clue_of("emotion", emotion).word
    who, pronoun = _WHO.get(gender or "", ("speaker", "The speaker"))
    article = "An" if word[0] in "aeiou" else "A"
    captions = (
        f"The {who} sounds {word}.",
        f"{article} {word} {who} is speaking.",
        f"{pronoun} sounds {word}.",
    )
    return tuple(dict.fromkeys(captions))
