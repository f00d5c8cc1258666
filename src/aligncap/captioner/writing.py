"""A captioner without ears: it writes captions of speech tokens that are there already."""

from collections.abc import Sequence
from dataclasses import dataclass

from aligncap.captioner.choosing import Wording
from aligncap.captioner.meta import ModelMeta
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtime import DecodeOptions, LanguageRuntime
from aligncap.values import SpeechTokens

Spoken = tuple[SpeechTokens, str]
"""Speech tokens, and P_act beside them; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A language model with its prompts."""

    meta: ModelMeta
    prompts: PromptBuilder
    runtime: LanguageRuntime

    def options(self, beam_size: int = 1) -> DecodeOptions:
        """Greedy or beam search within the model's limits."""
        limits = self.meta.limits
        return DecodeOptions(
            beam_size=beam_size, min_length=limits.min_tokens, max_length=limits.max_tokens
        )

    def write(
        self, spoken: Sequence[Spoken], *, language: str, options: DecodeOptions
    ) -> list[tuple[Wording, ...]]:
        """For each, all captions that are asked for, best first."""
        asked = [
            self.prompts.student(tokens, language=language, act=act).ids for tokens, act in spoken
        ]
        decode = self.prompts.vocabulary.decode
        return [
            tuple(Wording(decode(one.ids).strip(), one) for one in found)
            for found in self.runtime.generate(asked, options)
        ]
