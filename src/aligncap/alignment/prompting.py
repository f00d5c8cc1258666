"""Draws as rows of ids: what student, teacher and warm-up read of a clip, and are to say."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.alignment.data import TrainingRow
from aligncap.alignment.draws import Draw
from aligncap.alignment.settings import StudentSettings
from aligncap.captioner.batches import SharedPromptRow
from aligncap.captioner.prompts import PromptBuilder, TeacherReading
from aligncap.errors import DataError
from aligncap.values import SpeechTokens


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and one response to it, as ids: what a teacher is asked about."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


class Prompter:
    """Builds prompts and responses for draws from one list of rows."""

    def __init__(self, builder: PromptBuilder, rows: Sequence[TrainingRow]) -> None:
        self._builder, self._rows = builder, rows
        # One object for each id: a corpus has millions of them, and Python would keep each.
        self._ids = tuple(range(builder.vocabulary.size))
        self._responses: dict[str, tuple[int, ...]] = {}
        self._prompts: dict[tuple[str, str, TeacherReading], tuple[int, ...]] = {}

    def student_row(self, draw: Draw, student: StudentSettings) -> SharedPromptRow:
        """[bos] P_act? <speech> … </speech> P_instruct, and the captions drawn (Eq. 4).

        P_act and speech frames are left out at random as the settings say. DataError where the
        row has no speech.
        """
        row, chance = self._rows[draw.row], random.Random(draw.seed or 0)
        dropped = draw.seed is not None and chance.random() < student.act_dropout
        act = "" if dropped else row.student_act(student.act_mode, draw.language)
        speech = _thinned(row, 0.0 if draw.seed is None else student.speech_dropout, chance)
        prompt = self._builder.student(speech, language=draw.language, act=act)
        return SharedPromptRow(prompt.ids, self._said(draw))

    def teacher_examples(self, draw: Draw, teacher_prompt: str) -> list[Example]:
        """For each caption drawn, what the text teacher reads and the caption (Eq. 2).

        With P_sem each caption has a prompt of its own: the caption itself (decision 4).
        """
        row = self._rows[draw.row]
        return [
            Example(self._text_prompt(row, draw.language, teacher_prompt, caption), response)
            for caption, response in zip(self._texts(draw), self._said(draw), strict=True)
        ]

    def all_examples(self, teacher_prompt: str) -> list[Example]:
        """What the teacher may be asked about: every caption of every row, each once."""
        found: dict[Example, None] = {}
        seen: set[object] = set()
        for place, row in enumerate(self._rows):
            for language, captions in row.captions.items():
                # Views of one clip ask the same.
                key = (captions, row.act.get(language), row.transcript, language)
                if key not in seen:
                    seen.add(key)
                    draw = Draw(place, language, tuple(range(len(captions))), None)
                    found.update(dict.fromkeys(self.teacher_examples(draw, teacher_prompt)))
        return list(found)

    def warmup_rows(
        self, draw: Draw, *, prompts: Mapping[str, float], act_dropout: float
    ) -> list[SharedPromptRow]:
        """The captions drawn after a text prompt, whose kind is drawn from `prompts` (Eq. 2)."""
        row, chance = self._rows[draw.row], random.Random(draw.seed or 0)
        (kind,) = chance.choices(list(prompts), list(prompts.values()))
        if draw.seed is None:
            kind = next(iter(prompts))
        if "transcript" in kind and not row.transcript:
            kind = "act"
        dropped = draw.seed is not None and chance.random() < act_dropout
        if kind == "act" and dropped:
            prompt = self._builder.teacher(
                TeacherReading(), language=draw.language, teacher_prompt="act"
            )
            return [SharedPromptRow(prompt.ids, self._said(draw))]
        examples = self.teacher_examples(draw, kind)
        by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for example in examples:
            by_prompt.setdefault(example.prompt_ids, []).append(example.response_ids)
        return [SharedPromptRow(ids, tuple(said)) for ids, said in by_prompt.items()]

    def _text_prompt(
        self, row: TrainingRow, language: str, teacher_prompt: str, caption: str
    ) -> tuple[int, ...]:
        reading = TeacherReading(
            act=row.act.get(language, ""),
            sem=caption if teacher_prompt == "act+sem" else "",
            transcript=row.transcript if teacher_prompt == "act+transcript" else "",
        )
        key = (language, teacher_prompt, reading)
        if key not in self._prompts:
            try:
                prompt = self._builder.teacher(
                    reading, language=language, teacher_prompt=teacher_prompt
                )
            except DataError as error:
                raise DataError(f"{row.id}: {error}") from error
            self._prompts[key] = tuple(self._ids[i] for i in prompt.ids)
        return self._prompts[key]

    def _texts(self, draw: Draw) -> list[str]:
        captions = self._rows[draw.row].captions[draw.language]
        return [captions[place] for place in draw.captions]

    def _said(self, draw: Draw) -> tuple[tuple[int, ...], ...]:
        for text in (texts := self._texts(draw)):
            if text not in self._responses:
                said = self._builder.response(text)
                self._responses[text] = tuple(self._ids[i] for i in said)
        return tuple(self._responses[text] for text in texts)


def _thinned(row: TrainingRow, dropout: float, chance: random.Random) -> SpeechTokens:
    if row.speech is None:
        raise DataError(f"{row.id}: has no speech; the student needs speech tokens")
    if dropout == 0.0:
        return SpeechTokens(row.speech)
    frames = row.speech.shape[1]
    kept = [place for place in range(frames) if chance.random() >= dropout]
    kept = kept or [chance.randrange(frames)]
    return SpeechTokens(np.ascontiguousarray(row.speech[:, kept]))
