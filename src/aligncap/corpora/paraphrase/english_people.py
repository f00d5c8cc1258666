"""English words for who speaks."""

from collections.abc import Mapping

Words = Mapping[str, tuple[str, ...]]

PEOPLE: Mapping[str | None, Words] = {
    "female": {
        "a_person": ("a woman", "a woman", "a female speaker", "a lady"),
        "the_person": ("the woman", "the woman", "she", "the female speaker", "the lady"),
        "persons": ("the woman's", "a woman's", "the female speaker's", "the lady's", "her"),
        "them": ("the woman", "her", "the female speaker", "the lady"),
        "person": ("woman", "female speaker", "lady"),
        "persons_voice": ("a woman's voice", "the voice of a woman"),
        "gendered": ("female ",),
        "she": ("she",),
        "her": ("her",),
    },
    "male": {
        "a_person": ("a man", "a man", "a male speaker", "a gentleman"),
        "the_person": ("the man", "the man", "he", "the male speaker", "the gentleman"),
        "persons": ("the man's", "a man's", "the male speaker's", "the gentleman's", "his"),
        "them": ("the man", "him", "the male speaker", "the gentleman"),
        "person": ("man", "male speaker", "gentleman"),
        "persons_voice": ("a man's voice", "the voice of a man"),
        "gendered": ("male ",),
        "she": ("he",),
        "her": ("his",),
    },
    None: {
        "a_person": ("a speaker", "someone", "somebody", "a person"),
        "the_person": ("the speaker", "this speaker", "the person speaking", "the person"),
        "persons": ("the speaker's", "this speaker's", "the person's"),
        "them": ("the speaker", "this speaker", "the person"),
        "person": ("speaker", "person"),
        "persons_voice": ("a speaker's voice", "the speaker's voice"),
        "gendered": ("",),
        "she": ("they",),
        "her": ("their",),
    },
}
