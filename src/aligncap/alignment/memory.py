"""How much memory and disk a training run takes, by arithmetic over the model's size.

Upper estimates: what is certain (weights, gradients, moments) is exact, what depends on kernels
(activations) counts every tensor that the plain implementation keeps for the backward pass.
"""

import math
from dataclasses import dataclass

from aligncap.captioner.sizes import ModelSize
from aligncap.errors import RecipeError

BYTES = {"float32": 4, "bfloat16": 2}
"""Of one number."""

NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Of one number in 4 bits: its half byte, a byte of scale for each 64 numbers, and for each 256
scales a float32 of their own (QLoRA's double quantisation)."""

RESERVE_BYTES = 1 << 30
"""Left to a GPU's context, its libraries' workspaces and the allocator's gaps."""

CHECKPOINTS_AT_ONCE = 3
"""Two are kept, and a third is written before the oldest goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one batch holds."""

    rows: int
    """Prompts."""
    prompt_tokens: int
    responses: int
    """Responses that share a prompt."""
    response_tokens: int

    def __post_init__(self) -> None:
        for name in ("rows", "prompt_tokens", "responses", "response_tokens"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, must be at least 1")

    @property
    def length(self) -> int:
        """Tokens of a row: the prompt once, and its responses."""
        return self.prompt_tokens + self.responses * self.response_tokens

    @property
    def tokens(self) -> int:
        """Positions that run through the layers."""
        return self.rows * self.length

    @property
    def targets(self) -> int:
        """Positions that are projected onto the vocabulary."""
        return self.rows * self.responses * self.response_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """How numbers are kept."""

    weights: str
    """Of the language model; an adapter and new rows are always float32."""
    step: str
    """"bfloat16" runs the step under autocast."""
    eager: bool = False
    """Attention that keeps its table of scores ("eager")."""
    quantized: bool = False
    """The base's matrices are held in 4 bits; `weights` is what they are computed in."""

    @property
    def activation_bytes(self) -> int:
        """Of one number of an activation."""
        return min(BYTES[self.weights], BYTES[self.step])


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes of a training step by what they hold."""

    weights: int
    teacher: int
    """Weights of a teacher that is a model of its own."""
    gradients: int
    optimizer: int
    average: int
    autocast: int
    """bfloat16 copies of float32 weights, or the largest 4-bit matrix as it is computed with."""
    activations: int
    activations_checkpointed: int
    """With gradient checkpointing: each layer's input, and all of one layer."""
    logits: int
    teacher_step: int
    """Of the teacher's forward pass, which is over before the student's begins."""
    generation: int = 0
    """Of captions written between two steps: what the model keeps of prompts and responses."""
    beside: int = 0
    """Weights of a further frozen model, such as a reward model."""
    reserve: int = RESERVE_BYTES

    def total(self, *, checkpointed: bool) -> int:
        """The most that is held at once."""
        activations = self.activations_checkpointed if checkpointed else self.activations
        kept = self.weights + self.teacher + self.beside + self.optimizer + self.average
        # Between steps there are no gradients while the teacher reads or captions are written.
        student = self.gradients + self.autocast + activations + self.logits
        return kept + max(student, self.teacher_step, self.generation) + self.reserve


def memory_need(
    size: ModelSize,
    work: Work,
    numbers: Numbers,
    *,
    average: bool = False,
    own_teacher: bool = False,
    teacher_work: Work | None = None,
) -> MemoryNeed:
    """What a training step holds, in bytes.

    weights      parameters of the base · their width, and 4 for each of adapter and new rows; peft
                 keeps the rows' beginnings too
    gradients    4 for each trained parameter: what trains is float32
    optimizer    8 for each trained parameter: AdamW's two moments
    autocast     2 for each parameter of the base where float32 weights run in bfloat16; of 4-bit
                 matrices one at a time, in full
    activations  layers · `layer_bytes` and, beside, the hidden states before and after; the last
                 layer whole, though prompts of one length are run in it for keys and values alone
    logits       `logits_bytes`
    """
    trained = sum(size.trained.values())
    layer = layer_bytes(size, work, numbers)
    stream = work.tokens * size.hidden * BYTES[numbers.weights]
    mixed = numbers.step == "bfloat16" and numbers.weights == "float32"
    return MemoryNeed(
        weights=weight_bytes(size, numbers),
        teacher=size.base * BYTES[numbers.weights] if own_teacher else 0,
        gradients=4 * trained,
        optimizer=8 * trained,
        average=4 * trained if average else 0,
        autocast=_copies(size, numbers, mixed=mixed),
        activations=size.layers * layer + 3 * stream,
        activations_checkpointed=(size.layers + 3) * stream + layer,
        logits=logits_bytes(size, work, numbers),
        teacher_step=_forward_bytes(size, teacher_work, numbers) if teacher_work else 0,
    )


def weight_bytes(size: ModelSize, numbers: Numbers) -> int:
    """Bytes of all parameters, and of the copy of the new rows' beginnings that peft keeps."""
    packed = size.matrices if numbers.quantized else 0
    base = (size.base - packed) * BYTES[numbers.weights] + math.ceil(packed * NF4_BYTES)
    return base + 4 * size.lora + 2 * 4 * size.new_rows


def _copies(size: ModelSize, numbers: Numbers, *, mixed: bool) -> int:
    if not numbers.quantized:
        return 2 * size.base if mixed else 0
    largest = size.hidden * max(size.feed_forward, size.query) * BYTES[numbers.weights]
    return largest + (2 * (size.base - size.matrices) if mixed else 0)


def layer_bytes(size: ModelSize, work: Work, numbers: Numbers) -> int:
    """What one layer keeps for the backward pass, in bytes.

    a is the width of an activation, w that of the weights, which is the residual stream's. Of each
    token: both norms keep their input in float32 and what they give in w and in a; attention keeps
    queries, keys and values before and after positions are put in, keys and values once more where
    heads share them, and its output twice; the feed-forward layer so many tensors of its width;
    adapters what they read, in float32 and in a; dropout, twice, a mask and its output. Eager
    attention, and one with dropout, keeps the table of scores in float32 and in a, and its mask.
    """
    a, w = numbers.activation_bytes, BYTES[numbers.weights]
    norms = 2 * size.hidden * (4 + w + a)
    spread = 2 * size.query if size.key_value < size.query else 0
    attention = a * (2 * (size.query + 2 * size.key_value) + spread + 2 * size.query)
    feed_forward = size.feed_forward_tensors * a * size.feed_forward
    adapters = size.lora_inputs * (4 + a)
    dropout = 2 * size.hidden * (1 + w) if size.dropout else 0
    each = norms + attention + feed_forward + adapters + dropout
    table = 4 + a + (1 + a if size.attention_dropout else 0)
    kept = size.attention_dropout or numbers.eager
    scores = work.rows * size.heads * work.length**2 * table if kept else 0
    return work.tokens * each + scores


def logits_bytes(size: ModelSize, work: Work, numbers: Numbers) -> int:
    """The vocabulary projection of the responses and the loss over it, in bytes.

    Two tables in the step's numbers over all rows (what is projected, and what is picked of it),
    then four in float32 over the text rows: logits, those without the teacher's tokens, and the
    gradients of both.
    """
    return work.targets * (2 * numbers.activation_bytes * size.rows + 4 * 4 * size.text_rows)


def _forward_bytes(size: ModelSize, work: Work, numbers: Numbers) -> int:
    """A pass without gradient: one layer at a time, and the logits with their softmax."""
    return layer_bytes(size, work, numbers) + logits_bytes(size, work, numbers)


def checkpoint_bytes(size: ModelSize, *, average: bool) -> int:
    """One checkpoint: trained weights, two moments, the rows' beginnings, the average; float32."""
    trained = sum(size.trained.values())
    return 4 * ((4 if average else 3) * trained + size.new_rows)


def model_folder_bytes(size: ModelSize, dtype: str) -> int:
    """The weights of the model folder a run ends with: the adapter alone, where there is one."""
    return 4 * (size.lora + size.new_rows) if size.lora else size.base * BYTES[dtype]


def teacher_cache_bytes(tokens: int, *, top_k: int, text_rows: int, examples: int) -> int:
    """The teacher's distributions of so many response tokens, as `store` keeps them."""
    id_bytes = 2 if text_rows <= 1 << 16 else 4
    kept = min(top_k, text_rows)
    return tokens * (kept * (id_bytes + 2) + 2) + examples
