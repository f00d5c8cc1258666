"""Prompts of student and teacher (§3.1, Eq. 2 and 4), and batches in which responses share one.

A row of a batch is [prompt | response 1 | response 2 | … | padding]. Each response attends to the
prompt and itself, with positions that continue from the prompt's end, so it is scored as if it
followed the prompt alone. A response's last token predicts nothing and is not fed.

Where speech is vectors (`captioner.connectors`), a prompt holds a placeholder id for each of them,
and the features that they are made from go with it.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from math import log2
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from aligncap.captioner.vocabulary import Vocabulary
from aligncap.clues import (
    acoustic_prompt,
    audible_clues,
    audible_intensity,
    heard_clue,
    heard_emotion,
    retrieved_clues,
    signal_clues,
)
from aligncap.data.grammar import split_plan
from aligncap.data.plans import meaning_of_prompt, plan_for
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.values import Facts, SpeechFeatures, SpeechTokens

if TYPE_CHECKING:
    import torch

ACOUSTIC_PROMPT_SOURCES = ("none", "measured", "heard", "retrieved")
"""Where the student's P_act comes from (decision 5): nowhere (Eq. 4), the measured facts, the
facts and what the speech tokenizer's heads read, or the clue words nearest in a joint space."""

TEACHER_PROMPTS = ("act", "act+sem", "act+transcript", "sem")
"""What the text teacher reads (decision 4); `act+sem` is the paper's, and `sem` its row of Table 2
without P_act."""

INSTRUCTIONS: Mapping[str, str] = MappingProxyType(
    {
        "en": "Describe the speaker's emotion and voice in one sentence.\n",
        "zh": "用一句话描述说话人的情感和声音。\n",
    }
)
"""P_instruct of each language; the line break is where the caption begins."""


def student_acoustic_prompt(
    source: str,
    facts: Facts,
    tokens: SpeechTokens,
    language: str,
    *,
    weighed: bool = False,
) -> str:
    """P_act of speech in a language; "" where there is no clue, or for the source "none".

    A `weighed` one says how certain the heard emotion is, as models with caption plans expect.
    """
    if source not in ACOUSTIC_PROMPT_SOURCES:
        raise UnknownNameError("act mode", source, ACOUSTIC_PROMPT_SOURCES)
    if source == "none":
        return ""
    if source == "measured":
        return acoustic_prompt(signal_clues(tokens.readout, facts), language)
    if source == "retrieved":
        return acoustic_prompt(retrieved_clues(tokens.readout), language)
    emotions = tokens.readout.get("emotion", {})
    heard = None
    if weighed and emotions:
        intensity = audible_intensity(tokens.readout)
        heard = heard_clue(heard_emotion(emotions), language, intensity)
    return acoustic_prompt(audible_clues(tokens.readout, facts, heard), language)


def plan_of(
    prompt: str, tokens: SpeechTokens, language: str, style: str = "full", attempt: int = 0
) -> str:
    """The plan of speech after a P_act: one of those that fit what the P_act says, by a hash of it,
    of the length to a quarter of an octave, and of the attempt. So a copy of a clip in another
    format, which has other tokens, has the same plan where the same is heard in it."""
    length = round(4 * log2(max(1, tokens.codes.shape[1])))
    number = zlib.crc32(f"{prompt}|{length}".encode(), attempt)
    return str(plan_for(meaning_of_prompt(prompt, language), style, language, number))


STUDENT_PARTS = ("bos", "act", "open", "speech", "close", "instruction")
"""Of the student's prompt (Eq. 4): P_act, and speech between its marks."""


@dataclass(frozen=True)
class PromptTemplate:
    """The texts around P_act, P_sem and the speech; saved with the model."""

    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    """P_instruct by language."""
    separator: str = "\n"
    """Ends P_act, P_sem and a transcript."""
    student: tuple[str, ...] = STUDENT_PARTS
    """The parts of the student's prompt, in order; one may be left out, or be there twice."""

    def __post_init__(self) -> None:
        if not self.instructions or not all(self.instructions.values()):
            raise RecipeError("prompt template: give an instruction for each language")
        for part in self.student:
            if part not in STUDENT_PARTS:
                raise UnknownNameError("part of the student's prompt", part, STUDENT_PARTS)
        if self.student.count("speech") != 1:
            raise RecipeError("prompt template: the student's prompt has speech, once")


@dataclass(frozen=True, slots=True)
class TeacherPromptParts:
    """What the teacher may read of a clip besides the instruction; all of it is text."""

    act: str = ""
    """P_act, "Feeling calm, low, and slow" (Eq. 1)."""
    sem: str = ""
    """P_sem, the gold caption."""
    transcript: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorMeta:
    """The connector of a model whose prompts hold speech as vectors; saved with the model."""

    name: str = ""
    """As `connectors.open_connector` takes it; "" where speech is ids."""
    width: int = 0
    """Of the features that it is given."""
    vectors: int = 0
    """That a clip becomes; 0: one for each frame."""
    options: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.name) != (self.width > 0) or self.vectors < 0:
            raise RecipeError(f"connector {self.name!r}: features have a width of {self.width}")
        if {"width", "hidden"} & self.options.keys():
            raise RecipeError("the widths of a connector are no options of it")


class Prompt(tuple[int, ...]):
    """The ids of a prompt; placeholders among them stand for vectors made from its features.

    Prompts are equal where ids and features are. A part of one is plain ids.
    """

    features: SpeechFeatures | None

    def __new__(cls, ids: Iterable[int], features: SpeechFeatures | None = None) -> "Prompt":
        """Ids with features, or plain ones."""
        prompt = super().__new__(cls, ids)
        prompt.features = features
        return prompt

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.features

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, tuple) and super().__eq__(other)
        return bool(same) and self.features == features_of(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        own = super().__hash__()
        return own if self.features is None else hash((own, self.features))


def features_of(prompt: object) -> SpeechFeatures | None:
    """The features of a prompt; None for plain ids."""
    return prompt.features if isinstance(prompt, Prompt) else None


class PromptBuilder:
    """Builds the student's and the teacher's prompts (Eq. 2, Eq. 4) as token ids."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: PromptTemplate | None = None,
        *,
        vectors: int = 0,
    ) -> None:
        """`vectors` stand for speech that is features; 0: one for each frame."""
        self.vocabulary = vocabulary
        self.template = template or PromptTemplate()
        self.vectors = vectors

    def student(
        self, speech: SpeechTokens, *, language: str, act: str = "", plan: str = ""
    ) -> Prompt:
        """bos P_act? <speech> speech </speech> P_instruct plan?, or as the template says."""
        ids, spoken = self.vocabulary, self.vocabulary.speech_ids(speech)
        if speech.features is not None and self.vectors:
            spoken = self.vectors * spoken[:1]
        parts: dict[str, Sequence[int]] = {
            "bos": (ids.bos_id,),
            "act": self._text(act),
            "open": (ids.speech_open_id,),
            "speech": spoken,
            "close": (ids.speech_close_id,),
            "instruction": self._instruction(language),
        }
        found = chain(*(parts[part] for part in self.template.student), self._plan(plan))
        return Prompt(found, speech.features)

    def teacher(
        self, parts: TeacherPromptParts, *, language: str, teacher_prompt: str
    ) -> tuple[int, ...]:
        """bos P_act? (P_sem | transcript)? P_instruct: text only.

        `teacher_prompt` is one of `TEACHER_PROMPTS`; DataError where a part that it names is empty
        (an empty P_act is allowed: not every caption has a clue).
        """
        if teacher_prompt not in TEACHER_PROMPTS:
            raise UnknownNameError("teacher prompt", teacher_prompt, TEACHER_PROMPTS)
        ids = [self.vocabulary.bos_id]
        for kind in teacher_prompt.split("+"):
            text: str = asdict(parts)[kind]
            if not text and kind != "act":
                raise DataError(
                    f"teacher prompt {teacher_prompt!r}: the clip has no {kind} text; "
                    "give one or choose teacher_prompt = 'act'"
                )
            ids += self._text(text)
        return (*ids, *self._instruction(language))

    def response(self, caption: str) -> list[int]:
        """The ids of a caption and eos: what teacher and student predict.

        A plan before it ("f17 3|She …") is of ids of its own, those that `student` ends with.
        """
        plan, text = split_plan(caption)
        return [*self._plan(plan), *self.vocabulary.encode_text(text), self.vocabulary.eos_id]

    def _plan(self, plan: str) -> list[int]:
        return self.vocabulary.encode_text(f"{plan}|") if plan else []

    def _text(self, text: str) -> list[int]:
        return self.vocabulary.encode_text(text + self.template.separator) if text else []

    def _instruction(self, language: str) -> list[int]:
        if language not in self.template.instructions:
            raise UnknownNameError("caption language", language, self.template.instructions)
        return self.vocabulary.encode_text(self.template.instructions[language])


Array = TypeVar("Array")

PADDING = -1
"""The segment of padding."""


@dataclass(frozen=True, slots=True)
class SharedPromptRow:
    """One prompt and the responses to it."""

    prompt_ids: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        # Lists are accepted, and kept as tuples; a `Prompt` is one.
        ids = self.prompt_ids
        object.__setattr__(self, "prompt_ids", ids if isinstance(ids, Prompt) else tuple(ids))
        object.__setattr__(self, "responses", tuple(map(tuple, self.responses)))
        if not self.prompt_ids:
            raise DataError("a row needs a prompt of at least one token (bos)")
        if not self.responses or not all(self.responses):
            raise DataError("a row needs at least one response, and each at least one token (eos)")

    @property
    def length(self) -> int:
        """Tokens that are fed to the model."""
        return len(self.prompt_ids) + sum(len(response) - 1 for response in self.responses)


@dataclass(frozen=True, slots=True)
class SharedPromptBatch(Generic[Array]):
    """Rows side by side, padded on the right; B rows, T tokens, R responses, N targets."""

    input_ids: Array
    """[B, T]"""
    position_ids: Array
    """[B, T]; restarted at the prompt's end for each response."""
    segment_ids: Array
    """[B, T]; 0 prompt, 1… the row's responses, -1 padding."""
    attention: Array
    """[B, 1, T, T] bool; [b, 0, i, j]: token i attends to token j."""
    predict_index: Array
    """[N]; index into B * T of the token that predicts the target."""
    target_ids: Array
    """[N]; every token of every response, in reading order."""
    target_response: Array
    """[N]; the target's response, 0 … R-1 over the whole batch."""
    response_lengths: Array
    """[R]; targets of the response."""
    features: Array | None = None
    """[F, frames, width]; of those prompts that have any, in order, padded with zeros."""
    feature_lengths: Array | None = None
    """[F]; frames that are none of the padding."""
    embeds: Array | None = None
    """[B, T, hidden]; the ids embedded and the vectors in their places, where there are any."""


def collate(rows: Sequence[SharedPromptRow], pad_id: int) -> SharedPromptBatch[NDArray[Any]]:
    """Ragged rows as one padded batch of numpy arrays."""
    if not rows:
        raise DataError("a batch needs at least one row")
    time = max(row.length for row in rows)
    input_ids = np.full((len(rows), time), pad_id, dtype=np.int64)
    position_ids = np.zeros_like(input_ids)
    segment_ids = np.full_like(input_ids, PADDING)
    predict: list[int] = []
    for number, row in enumerate(rows):
        end = start = len(row.prompt_ids)
        input_ids[number, :start] = row.prompt_ids
        position_ids[number, :start] = np.arange(start)
        segment_ids[number, :start] = 0
        for segment, response in enumerate(row.responses, start=1):
            begin, end = end, end + len(response) - 1
            input_ids[number, begin:end] = response[:-1]
            position_ids[number, begin:end] = np.arange(start, start + end - begin)
            segment_ids[number, begin:end] = segment
            # The prompt's last token predicts the first token of every response.
            predict += (number * time + column for column in (start - 1, *range(begin, end)))
    responses = [response for row in rows for response in row.responses]
    lengths = np.array([len(response) for response in responses], dtype=np.int64)
    key, query = segment_ids[:, None, :], segment_ids[:, :, None]
    # Padding attends to the prompt: a softmax over nothing would be NaN, and spread in gradients.
    visible = ((key == 0) | ((key == query) & (key != PADDING))) & np.tri(time, dtype=bool)
    return SharedPromptBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        segment_ids=segment_ids,
        attention=visible[:, None],
        predict_index=np.array(predict, dtype=np.int64),
        target_ids=np.array([i for response in responses for i in response], dtype=np.int64),
        target_response=np.repeat(np.arange(len(responses), dtype=np.int64), lengths),
        response_lengths=lengths,
        **padded_features([row.prompt_ids for row in rows]),
    )


def padded_features(prompts: Iterable[Sequence[int]]) -> dict[str, NDArray[Any]]:
    """ "features" and "feature_lengths" of a batch of prompts; nothing where none has features."""
    found = [features.read() for one in prompts if (features := features_of(one)) is not None]
    if not found:
        return {}
    lengths = np.array([len(one) for one in found], dtype=np.int64)
    padded = np.zeros((len(found), lengths.max(), found[0].shape[1]), dtype=np.float32)
    for number, one in enumerate(found):
        padded[number, : len(one)] = one
    return {"features": padded, "feature_lengths": lengths}


def to_torch(
    batch: "SharedPromptBatch[NDArray[Any]]", device: "torch.device | str" = "cpu"
) -> "SharedPromptBatch[torch.Tensor]":
    """The same batch as torch tensors on a device."""
    import torch

    arrays = {field.name: getattr(batch, field.name) for field in fields(batch)}
    there = {k: torch.from_numpy(a).to(device) for k, a in arrays.items() if a is not None}
    return SharedPromptBatch(**there)


def prompt_columns(batch: SharedPromptBatch[Any]) -> int:
    """Leading columns that are prompt in every row, each prompt's last token left out.

    All tokens that predict a target are in the columns after them.
    """
    return int((batch.segment_ids == 0).sum(1).min()) - 1


def drop_columns(batch: SharedPromptBatch[Array], columns: int) -> SharedPromptBatch[Array]:
    """The batch without its first `columns` columns, to which its tokens still attend: attention
    is [B, 1, T - columns, T], and `predict_index` counts in B * (T - columns)."""
    full: Any = batch
    time = full.input_ids.shape[1]
    row, column = full.predict_index // time, full.predict_index % time
    return replace(
        batch,
        input_ids=full.input_ids[:, columns:],
        position_ids=full.position_ids[:, columns:],
        segment_ids=full.segment_ids[:, columns:],
        attention=full.attention[:, :, columns:],
        embeds=None if full.embeds is None else full.embeds[:, columns:],
        predict_index=row * (time - columns) + column - columns,
    )
