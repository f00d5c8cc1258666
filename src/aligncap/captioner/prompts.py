"""P_act at inference: which clues the student reads beside the speech (decision 5).

Prompts as spans of ids that know what they are: P_act, P_sem, speech, P_instruct (§3.1).

One prompt, many responses: a prompt is encoded once, whatever is said to it.

A row of the batch is [prompt | response 1 | response 2 | … | padding]. Each response sees the
prompt and itself, with positions that go on from the prompt's end, so it is scored as if it stood
behind the prompt alone. A response's last token predicts nothing and is not fed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from aligncap.captioner.vocabulary import Vocabulary
from aligncap.clues import acoustic_prompt, audible_clues, measured_clues
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.values import Facts, SpeechTokens

if TYPE_CHECKING:
    import torch


ACOUSTIC_PROMPT_SOURCES = ("none", "measured", "heard")
"""Where the student's P_act comes from: nowhere (Eq. 4), the signal, or the heads as well."""


def student_acoustic_prompt(mode: str, facts: Facts, tokens: SpeechTokens, language: str) -> str:
    """P_act of unseen speech in a language; "" where there is nothing to say, or for "none"."""
    if mode not in ACOUSTIC_PROMPT_SOURCES:
        raise UnknownNameError("act mode", mode, ACOUSTIC_PROMPT_SOURCES)
    if mode == "none":
        return ""
    heard = audible_clues(tokens.readout, facts) if mode == "heard" else measured_clues(facts)
    return acoustic_prompt(heard, language)


SPAN_KINDS = ("bos", "act", "sem", "transcript", "speech", "instruct")
"""What a span of a prompt can be; `speech` includes its <speech> and </speech>."""

TEACHER_PROMPTS = ("act", "act+sem", "act+transcript")
"""What the text teacher reads (decision 4); `act+sem` is the paper's."""

INSTRUCTIONS: Mapping[str, str] = MappingProxyType(
    {
        "en": "Describe the speaker's emotion and voice in one sentence.\n",
        "zh": "用一句话描述说话人的情感和声音。\n",
    }
)
"""P_instruct of each language; the line break is where the caption begins."""


@dataclass(frozen=True, slots=True)
class Span:
    """Ids [start, stop) of a prompt, and what they are."""

    kind: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: its ids, and spans that cover them in order without a gap."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        end = 0
        for span in self.spans:
            if span.kind not in SPAN_KINDS:
                raise UnknownNameError("span", span.kind, SPAN_KINDS)
            if span.start != end or span.stop <= span.start:
                raise DataError(f"prompt: span {span.kind} is [{span.start}, {span.stop}) at {end}")
            end = span.stop
        if end != len(self.ids):
            raise DataError(f"prompt: spans cover {end} of {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, kind: str) -> tuple[int, ...]:
        """The ids of one kind of span; empty where the prompt has none."""
        if kind not in SPAN_KINDS:
            raise UnknownNameError("span", kind, SPAN_KINDS)
        return tuple(
            i for span in self.spans if span.kind == kind for i in self.ids[span.start : span.stop]
        )


@dataclass(frozen=True)
class PromptTemplate:
    """The texts around P_act, P_sem and the speech; saved with the model."""

    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    """P_instruct by language."""
    separator: str = "\n"
    """Ends P_act, P_sem and a transcript."""

    def __post_init__(self) -> None:
        if not self.instructions or not all(self.instructions.values()):
            raise RecipeError("prompt template: give an instruction for each language")


@dataclass(frozen=True, slots=True)
class TeacherPromptParts:
    """What the teacher may read of a clip besides the instruction; all of it is text."""

    act: str = ""
    """P_act, "Feeling calm, low, and slow" (Eq. 1)."""
    sem: str = ""
    """P_sem, the gold caption."""
    transcript: str = ""


class PromptBuilder:
    """Builds the student's and the teacher's prompts (Eq. 2, Eq. 4)."""

    def __init__(self, vocabulary: Vocabulary, template: PromptTemplate | None = None) -> None:
        self.vocabulary = vocabulary
        self.template = template or PromptTemplate()

    def student(self, speech: SpeechTokens, *, language: str, act: str = "") -> Prompt:
        """[bos] P_act? [<speech>] speech [</speech>] P_instruct: the student reads speech."""
        vocabulary = self.vocabulary
        ids = vocabulary.speech_ids(speech)
        marked = [vocabulary.speech_open_id, *ids, vocabulary.speech_close_id]
        return self._join(("act", self._text(act)), ("speech", marked), self._instruct(language))

    def teacher(self, reading: TeacherPromptParts, *, language: str, teacher_prompt: str) -> Prompt:
        """[bos] P_act P_sem? P_instruct: the teacher reads text.

        `teacher_prompt` is one of `TEACHER_PROMPTS`; DataError where the reading lacks what it
        asks for (an empty P_act is allowed: not every caption has a clue).
        """
        if teacher_prompt not in TEACHER_PROMPTS:
            raise UnknownNameError("teacher prompt", teacher_prompt, TEACHER_PROMPTS)
        parts = [("act", self._text(reading.act))]
        for kind in teacher_prompt.split("+")[1:]:
            text: str = asdict(reading)[kind]
            if not text:
                raise DataError(
                    f"teacher prompt {teacher_prompt!r}: the clip has no {kind} text; "
                    "give one or choose teacher_prompt = 'act'"
                )
            parts.append((kind, self._text(text)))
        return self._join(*parts, self._instruct(language))

    def response(self, caption: str) -> list[int]:
        """The ids of a caption and eos: what both are to say next."""
        return [*self.vocabulary.encode_text(caption), self.vocabulary.eos_id]

    def _text(self, text: str) -> list[int]:
        return self.vocabulary.encode_text(text + self.template.separator) if text else []

    def _instruct(self, language: str) -> tuple[str, list[int]]:
        if language not in self.template.instructions:
            raise UnknownNameError("caption language", language, self.template.instructions)
        return "instruct", self.vocabulary.encode_text(self.template.instructions[language])

    def _join(self, *parts: tuple[str, Sequence[int]]) -> Prompt:
        ids: list[int] = []
        spans: list[Span] = []
        for kind, part in [("bos", [self.vocabulary.bos_id]), *parts]:
            if part:
                spans.append(Span(kind, len(ids), len(ids) + len(part)))
                ids.extend(part)
        return Prompt(tuple(ids), tuple(spans))


Array = TypeVar("Array")

PADDING = -1
"""The segment of padding."""


@dataclass(frozen=True, slots=True)
class SharedPromptRow:
    """One prompt and the responses to it."""

    prompt_ids: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        # Lists are welcome; what is kept cannot change any more.
        object.__setattr__(self, "prompt_ids", tuple(self.prompt_ids))
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
    """[B, 1, T, T] bool; [b, 0, i, j]: token i sees token j."""
    predict_index: Array
    """[N]; index into B * T of the token that predicts the target."""
    target_ids: Array
    """[N]; every token of every response, in reading order."""
    target_response: Array
    """[N]; the target's response, 0 … R-1 over the whole batch."""
    response_row: Array
    """[R]; the response's row."""
    response_rank: Array
    """[R]; the response's number within its row."""
    response_lengths: Array
    """[R]; targets of the response."""


def collate(rows: Sequence[SharedPromptRow], pad_id: int) -> SharedPromptBatch[NDArray[Any]]:
    """Ragged rows as one padded batch of numpy arrays."""
    if not rows:
        raise DataError("a batch needs at least one row")
    time = max(row.length for row in rows)
    input_ids = np.full((len(rows), time), pad_id, dtype=np.int64)
    position_ids = np.zeros((len(rows), time), dtype=np.int64)
    segment_ids = np.full((len(rows), time), PADDING, dtype=np.int64)
    predict: list[int] = []
    for number, row in enumerate(rows):
        ids, positions, segments, predicting = _lay_out(row)
        input_ids[number, : len(ids)] = ids
        position_ids[number, : len(ids)] = positions
        segment_ids[number, : len(ids)] = segments
        predict.extend(number * time + place for place in predicting)
    responses = [response for row in rows for response in row.responses]
    lengths = np.array([len(response) for response in responses], dtype=np.int64)
    counts = [len(row.responses) for row in rows]
    return SharedPromptBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        segment_ids=segment_ids,
        attention=_attention(segment_ids),
        predict_index=np.array(predict, dtype=np.int64),
        target_ids=np.array([i for response in responses for i in response], dtype=np.int64),
        target_response=np.repeat(np.arange(len(responses), dtype=np.int64), lengths),
        response_row=np.repeat(np.arange(len(rows), dtype=np.int64), counts),
        response_rank=np.concatenate([np.arange(count, dtype=np.int64) for count in counts]),
        response_lengths=lengths,
    )


def to_torch(
    batch: "SharedPromptBatch[NDArray[Any]]", device: "torch.device | str" = "cpu"
) -> "SharedPromptBatch[torch.Tensor]":
    """The same batch as torch tensors on a device."""
    import torch

    return SharedPromptBatch(
        **{
            field.name: torch.from_numpy(getattr(batch, field.name)).to(device)
            for field in fields(batch)
        }
    )


def prompt_columns(batch: SharedPromptBatch[Any]) -> int:
    """Leading columns in which every row has its prompt, each prompt's last token left out.

    What comes behind them holds all that predicts a target.
    """
    return int((batch.segment_ids == 0).sum(1).min()) - 1


def behind(batch: SharedPromptBatch[Array], columns: int) -> SharedPromptBatch[Array]:
    """The batch without its first `columns` columns, which its tokens still see: attention is
    [B, 1, T - columns, T], and `predict_index` counts in B * (T - columns)."""
    now: Any = batch
    time = now.input_ids.shape[1]
    row, column = now.predict_index // time, now.predict_index % time
    return replace(
        batch,
        input_ids=now.input_ids[:, columns:],
        position_ids=now.position_ids[:, columns:],
        segment_ids=now.segment_ids[:, columns:],
        attention=now.attention[:, :, columns:],
        predict_index=row * (time - columns) + column - columns,
    )


def _lay_out(row: SharedPromptRow) -> tuple[list[int], list[int], list[int], list[int]]:
    """Ids, positions and segments of a row, and the places that predict its targets in order."""
    start = len(row.prompt_ids)
    ids = list(row.prompt_ids)
    positions = list(range(start))
    segments = [0] * start
    predicting: list[int] = []
    for number, response in enumerate(row.responses, start=1):
        fed = response[:-1]
        # The prompt's last token predicts the first token of every response.
        predicting += [start - 1, *range(len(ids), len(ids) + len(fed))]
        ids += fed
        positions += range(start, start + len(fed))
        segments += [number] * len(fed)
    return ids, positions, segments, predicting


def _attention(segment_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Who sees whom, [B, 1, T, T]: the prompt and one's own response, never what comes later."""
    time = segment_ids.shape[1]
    seen, seeing = segment_ids[:, None, :], segment_ids[:, :, None]
    # Padding sees the prompt: a softmax over nothing would be NaN, and NaN spreads in gradients.
    visible = ((seen == 0) | ((seen == seeing) & (seen != PADDING))) & np.tri(time, dtype=bool)
    mask: NDArray[np.bool_] = visible[:, None]
    return mask
