"""One prompt, many responses: a prompt is encoded once, whatever is said to it.

A row of the batch is [prompt | response 1 | response 2 | … | padding]. Each response sees the
prompt and itself, with positions that go on from the prompt's end, so it is scored as if it stood
behind the prompt alone. A response's last token predicts nothing and is not fed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError

if TYPE_CHECKING:
    import torch

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
