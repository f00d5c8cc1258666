"""KD as one writes it from the paper with transformers: two forward passes for each caption.

No code of ours: right-padded rows of prompt and caption, logits of every position, and PyTorch's KL
over those that predict a caption token. Eq. 5 over the text vocabulary, a mean over caption tokens.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Ids = Sequence[int]


def plain_kd_loss(
    student: Any,
    teacher: Any,
    heard: Sequence[Ids],
    read: Sequence[Ids],
    said: Sequence[Ids],
    *,
    text_rows: int,
    as_teacher: AbstractContextManager[Any],
) -> Tensor:
    """KL(teacher ‖ student), mean over caption tokens.

    Of each caption in `said` the student's prompt is in `heard`, the teacher's in `read`;
    `as_teacher` is what the teacher needs around it: an adapter turned off, or nothing.
    """
    with torch.no_grad(), as_teacher:
        p = caption_logits(teacher, read, said)[:, :text_rows].log_softmax(-1)
    q = caption_logits(student, heard, said)[:, :text_rows].log_softmax(-1)
    return functional.kl_div(q, p, reduction="batchmean", log_target=True)


def caption_logits(model: Any, prompts: Sequence[Ids], captions: Sequence[Ids]) -> Tensor:
    """Logits of every caption token, [tokens, vocabulary]."""
    rows = [[*prompt, *caption] for prompt, caption in zip(prompts, captions, strict=True)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    seen = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        predicts[place, len(prompt) - 1 : len(row) - 1] = True
    logits: Tensor = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
    return logits[predicts]
