"""Prompts as spans of ids that know what they are: P_act, P_sem, speech, P_instruct (§3.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.values import SpeechTokens

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
class TeacherReading:
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

    def teacher(self, reading: TeacherReading, *, language: str, teacher_prompt: str) -> Prompt:
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
