"""Greedy captions of validation rows, checked against the signal and the labels.

Preference losses can look well while captions get worse: this reads what the model really says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import NonNegativeInt

from aligncap.alignment.draws import Draw
from aligncap.alignment.prompting import Prompter
from aligncap.captioner.meta import CaptionLimits
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.runtime import DecodeOptions, ResponseRules
from aligncap.captioner.torch_runtime import TorchRuntime
from aligncap.clues import emotion_of, find_clues
from aligncap.preference.claims import verdicts
from aligncap.preference.pair_lessons import reads
from aligncap.preference.rewards import RewardOf
from aligncap.preference.rows import PreferenceRow
from aligncap.recipes import recipe_section
from aligncap.values import Verdict


@recipe_section
class CheckSettings:
    """Captions that are written and checked at each validation."""

    rows: NonNegativeInt = 64
    """Validation rows that are captioned, spread over all there are; 0 checks nothing."""


@dataclass(frozen=True, slots=True)
class Captioning:
    """A model, and what it needs to caption rows."""

    model: CaptionModel
    prompter: Prompter
    limits: CaptionLimits
    act_mode: str
    """Where the prompt's P_act comes from."""

    def runtime(self) -> TorchRuntime:
        """The model as what responses are asked of."""
        vocabulary = self.model.vocabulary
        stops = vocabulary.stop_ids(self.limits.stop_characters)
        return TorchRuntime(self.model.causal_lm, ResponseRules(vocabulary.text_rows, stops))

    def prompt_ids(self, place: int, row: PreferenceRow) -> tuple[int, ...]:
        """What the model reads of a row, the one at `place` in the prompter's list."""
        draw = Draw(place, row.language, (0,), None)
        return self.prompter.student_row(draw, reads(self.act_mode)).prompt_ids

    def text_of(self, ids: Sequence[int]) -> str:
        """A response in words."""
        return self.model.vocabulary.decode(ids).strip()


class CaptionCheck:
    """Captions a fixed choice of validation rows and says how they did."""

    def __init__(
        self,
        captioning: Captioning,
        rows: Sequence[PreferenceRow],
        settings: CheckSettings,
        *,
        reward: RewardOf | None = None,
    ) -> None:
        self._captioning, self._reward = captioning, reward
        places = [place for place, row in enumerate(rows) if row.clip.split == "validation"]
        step = max(1.0, len(places) / max(1, settings.rows))
        chosen = [places[int(i * step)] for i in range(min(settings.rows, len(places)))]
        self._rows = [rows[place] for place in chosen]
        self._prompts = [captioning.prompt_ids(place, rows[place]) for place in chosen]

    def __call__(self) -> dict[str, float]:
        """Means over the captions, as far as the rows know what is needed:

        "validation_contradicted" (of the claims that the signal can tell of, the share that it
        contradicts: the hallucination rate), "validation_clues" and "validation_tokens" a caption
        (saying less is the cheap way to a lower rate), "validation_emotion" (share that names
        the labelled emotion) and "validation_reward".
        """
        if not self._rows:
            return {}
        limits = self._captioning.limits
        options = DecodeOptions(
            beam_size=1, min_length=limits.min_tokens, max_length=limits.max_tokens
        )
        found = self._captioning.runtime().generate(self._prompts, options)
        texts = [self._captioning.text_of(one[0].ids) for one in found]
        count = len(texts)
        clues = [
            find_clues(text, row.language) for text, row in zip(texts, self._rows, strict=True)
        ]
        told = {
            "validation_clues": sum(map(len, clues)) / count,
            "validation_tokens": sum(len(one[0].ids) for one in found) / count,
            **self._against_signal(texts),
        }
        labelled = [
            emotion_of(named) == row.emotion
            for named, row in zip(clues, self._rows, strict=True)
            if row.emotion is not None
        ]
        if labelled:
            told["validation_emotion"] = sum(labelled) / len(labelled)
        if self._reward is not None:
            pairs = zip(self._rows, texts, strict=True)
            told["validation_reward"] = sum(self._reward(r, [t])[0] for r, t in pairs) / count
        return told

    def _against_signal(self, texts: Sequence[str]) -> dict[str, float]:
        counts: Counter[Verdict] = Counter()
        measured = 0
        for text, row in zip(texts, self._rows, strict=True):
            if row.facts is not None:
                measured += 1
                counts += verdicts(text, language=row.language, facts=row.facts)
        if not measured:
            return {}
        told = counts[Verdict.SUPPORTED] + counts[Verdict.CONTRADICTED]
        return {"validation_contradicted": counts[Verdict.CONTRADICTED] / max(1, told)}
