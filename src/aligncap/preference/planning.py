"""What a dry run says of DPO and of reward models, in the shape of `alignment.planning`.

Beside the step itself, memory is taken by what happens between steps: the reference reads every
candidate before the first one, and captions are written to be checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aligncap.alignment.data import SpeechSource
from aligncap.alignment.memory import BYTES, MemoryNeed, Work, memory_need, teacher_cache_bytes
from aligncap.alignment.planning import (
    assumed_of,
    disk_table,
    heard_tokens,
    memory_table,
    named_folders,
    numbers_of,
    parameters_of,
    plan_model,
)
from aligncap.alignment.settings import StageSettings, check_layout
from aligncap.alignment.teacher import ROWS_AT_ONCE
from aligncap.captioner.sizes import ModelSize
from aligncap.captioner.torch_runtime import PROMPTS_AT_ONCE
from aligncap.preference.pair_lessons import with_pairs
from aligncap.preference.rows import PreferenceRow, read_preferences
from aligncap.training.needs import Needed, needed_path, table_of

ROWS_CURE = "make it with a recipe of kind 'prefer', or as aligncap.preference.rows describes"

CANDIDATES = 5
"""Of a clip, where no rows are here to count them (§3.2, Fig. 5)."""


@dataclass(frozen=True, slots=True)
class PreferencePlan:
    """What the rows and the model of a preference recipe tell of it."""

    settings: StageSettings
    rows: Sequence[PreferenceRow]
    """Empty where one of the files is not here."""
    size: ModelSize | None
    """None where the model is not here."""
    needed: Sequence[Needed]
    assumed: Mapping[str, object]
    notes: Sequence[str]

    def table(
        self,
        need: MemoryNeed | None,
        disk: Mapping[str, int | None] | None = None,
        *,
        head: int = 0,
    ) -> Mapping[str, object]:
        """The plan, with what the step holds and what it writes beside checkpoints and model;
        `head` is the parameters of a head beside the model."""
        size = self.size
        return {
            "loads": table_of(self.needed),
            "parameters": parameters_of(size, head=head) if size else None,
            "memory_bytes": memory_table(need, self.settings) if need else None,
            "disk_bytes": disk_table(size, self.settings, disk or {}, head=head) if size else None,
            "assumed": self.assumed,
            "notes": list(self.notes),
        }

    def work(self, **changes: int) -> Work:
        """What one batch holds, or with `changes` another one."""
        estimate, batch = self.settings.estimate, self.settings.batch
        usual = {
            "rows": batch.rows,
            "prompt_tokens": heard_tokens(estimate),
            "responses": self.candidates,
            "response_tokens": estimate.caption_tokens,
        }
        return Work(**{**usual, **changes})

    def need(
        self,
        size: ModelSize,
        work: Work,
        *,
        head: int = 0,
        own_reference: bool = False,
        read_between: Work | None = None,
    ) -> MemoryNeed:
        """What a step holds, `head` being the parameters of a head in float32; `read_between` is
        what is read without gradient between steps."""
        average = self.settings.training.ema_decay is not None
        need = memory_need(
            size,
            work,
            numbers_of(self.settings),
            average=average,
            own_teacher=own_reference,
            teacher_work=read_between,
        )
        return replace(
            need,
            weights=need.weights + 4 * head,
            gradients=need.gradients + 4 * head,
            optimizer=need.optimizer + 8 * head,
            average=need.average + (4 * head if average else 0),
        )

    def generation_bytes(self, size: ModelSize, *, prompts: int, captions: int) -> int:
        """Keys and values of the prompts that are run together and of all that is said after them.

        A prompt's are kept once, however many captions it has (`captioner.continuation`).
        """
        if not prompts:
            return 0
        work = self.work(
            rows=min(prompts, PROMPTS_AT_ONCE),
            responses=captions,
            response_tokens=self.settings.limits.max_tokens,
        )
        return work.tokens * size.layers * 2 * size.key_value * BYTES[self.settings.model.dtype]

    @property
    def candidates(self) -> int:
        """The most candidates of a clip that are in pairs."""
        limit = self.settings.batch.captions
        counts = [_in_pairs(row, limit) for row in self.rows]
        return max(counts, default=min(limit, CANDIDATES))

    def examples(self, *splits: str) -> int:
        """Candidates that are in pairs, of the clips of some splits."""
        rows = [row for row in self.rows if row.clip.split in splits]
        return sum(_in_pairs(row, self.settings.batch.captions) for row in rows)


def begin_plan(settings: StageSettings, *, pairs: bool) -> PreferencePlan:
    """What rows and model tell; rows that hold no pair are left out where `pairs` are learnt."""
    check_layout(settings)
    rows, source, needed = _read(settings, pairs=pairs)
    backbone = plan_model(settings, source)
    assumed = assumed_of(settings.estimate, source, hears=True)
    if pairs and source is None:
        assumed["candidates"] = min(settings.batch.captions, CANDIDATES)
    needed += [*backbone.needed, *named_folders(settings)]
    return PreferencePlan(settings, rows, backbone.size, needed, assumed, backbone.notes)


def plan_dpo(settings: StageSettings, *, top_k: int, checked: int) -> Mapping[str, object]:
    """The plan of DPO: `top_k` tokens of the reference's distributions are kept for validation,
    at which `checked` rows are captioned."""
    begun = begin_plan(settings, pairs=True)
    size, work = begun.size, begun.work()
    if size is None:
        return begun.table(None)
    need = begun.need(size, work, read_between=replace(work, rows=ROWS_AT_ONCE))
    written = begun.generation_bytes(size, prompts=checked, captions=1)
    said = None
    if begun.rows:
        held_out = _share(begun.examples("validation"), begun)
        # Of each a sum and whether it is there; of those of validation, distributions too.
        said = 5 * begun.examples("train", "validation") + teacher_cache_bytes(
            held_out * settings.estimate.caption_tokens,
            top_k=top_k,
            text_rows=size.text_rows,
            examples=held_out,
        )
    return begun.table(replace(need, generation=written), {"reference": said})


def plan_reward(settings: StageSettings) -> Mapping[str, object]:
    """The plan of a reward model: nothing is projected onto the vocabulary, and a head is new."""
    begun = begin_plan(settings, pairs=True)
    size = begun.size
    if size is None:
        return begun.table(None)
    head = size.hidden + 1
    # The end of a response is read as well.
    work = begun.work(response_tokens=settings.estimate.caption_tokens + 1)
    need = replace(begun.need(size, work, head=head), logits=0)
    return begun.table(need, head=head)


def _read(
    settings: StageSettings, *, pairs: bool
) -> tuple[Sequence[PreferenceRow], SpeechSource | None, list[Needed]]:
    paths = settings.data.rows
    needed = [needed_path("preference rows", path, cure=ROWS_CURE) for path in paths]
    if not all(one.present for one in needed):
        return (), None, needed
    rows, source = read_preferences(paths)
    if pairs:
        rows = with_pairs(rows, candidates=settings.batch.captions)
    return rows, source, needed


def _share(examples: int, begun: PreferencePlan) -> int:
    """Of the candidates of all validation clips, those of the clips that validations are of."""
    clips = sum(row.clip.split == "validation" for row in begun.rows)
    return -(-examples * min(begun.settings.validation.rows, clips) // max(1, clips))


def _in_pairs(row: PreferenceRow, limit: int) -> int:
    return len({place for pair in row.pairs if max(pair) < limit for place in pair})
