"""The paraphrase grammar: one meaning (label and measured levels) in hundreds of sentences."""

from aligncap.data.paraphrase.grammar import ASPECTS, TRAIT_OF, Meaning
from aligncap.data.paraphrase.planner import Sentence, draw_captions, draw_sentence

__all__ = ["ASPECTS", "TRAIT_OF", "Meaning", "Sentence", "draw_captions", "draw_sentence"]
