"""The paraphrase grammar: one meaning (label and measured levels) in hundreds of sentences."""

from aligncap.corpora.paraphrase.meaning import ASPECTS, Meaning
from aligncap.corpora.paraphrase.planner import draw_caption, draw_captions

__all__ = ["ASPECTS", "Meaning", "draw_caption", "draw_captions"]
