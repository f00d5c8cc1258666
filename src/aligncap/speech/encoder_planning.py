"""What a dry run says of the training of the built-in encoder.

The shape is that of `aligncap.alignment.planning`. What a step keeps for its backward pass is not
reckoned but weighed, on a batch of two of the longest clips, and is as many times that as a batch
is larger. Python and its libraries come on top.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aligncap.acoustics.frontend import MELS
from aligncap.corpora import Utterance
from aligncap.speech.encoder_data import Batch, Clip, make_batch
from aligncap.speech.encoder_settings import FRAMES_PER_S, EncoderSettings
from aligncap.speech.features import PROSODY, VIEWS, EncoderInput
from aligncap.training.checkpoints import KEPT
from aligncap.training.needs import MANIFEST_CURE, needed_path, table_of

_FRAME_BYTES = 2 * (MELS + 2)
"""Of the feature store: a spectrum, pitch and its strength in float16."""
_TRIED = 2

Step = Callable[[Batch], Mapping[str, Tensor]]


def plan_encoder(
    settings: EncoderSettings, model: nn.Module, step: Step, train: Sequence[Utterance] | None
) -> Mapping[str, object]:
    """The plan of a recipe; `train` are the clips it is trained on, None where a manifest is not
    here. `step` gives the losses of `model`, which is thrown away afterwards."""
    count = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    weights = 4 * count + buffers
    memory = {
        "weights": weights,
        "gradients": 4 * count,
        "optimizer": 8 * count,
        "average": 4 * count,
        "activations": activation_bytes(settings, model, step),
    }
    disk = {
        # Weights, two moments and the average, and one more while it is written.
        "checkpoints": (KEPT + 1) * (16 * count + buffers),
        "encoder": 2 * weights,
        "features": None if train is None else feature_bytes(train),
    }
    return {
        "loads": table_of(
            needed_path("manifest", path, cure=MANIFEST_CURE) for path in settings.data
        ),
        "parameters": {"total": count, "trained": count, "groups": {"encoder": count}},
        "memory_bytes": {**memory, "total": sum(memory.values())},
        "disk_bytes": {**disk, "total": sum(value or 0 for value in disk.values())},
        "assumed": {"clip_s": settings.longest_s},
        "notes": [_clips(train, settings), _measuring(settings.features)],
    }


def activation_bytes(settings: EncoderSettings, model: nn.Module, step: Step) -> int:
    """What a batch of the longest clips keeps for its backward pass, and the gradients of the
    largest of it twice."""
    weights = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    mixed = settings.training.precision == "bfloat16"
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        losses = step(_batch(settings.longest_frames))
    sizes = [storage.nbytes() for storage in kept.values()]
    del losses
    return (sum(sizes) + 2 * max(sizes)) * settings.batch_size // _TRIED


def _batch(frames: int) -> Batch:
    chance = np.random.default_rng(0)
    inputs = [
        EncoderInput(
            chance.standard_normal((VIEWS, frames, MELS)).astype(np.float32),
            chance.standard_normal((frames, PROSODY)).astype(np.float32),
        )
        for _ in range(_TRIED)
    ]
    return make_batch(inputs, [Clip("", 0, 0)] * _TRIED, [4.0] * _TRIED)


def feature_bytes(clips: Iterable[Utterance]) -> int | None:
    """What the features of clips take on disk, at most: silence at both ends of a clip is not
    kept. None where one does not say how long it is."""
    total_s = 0.0
    for one in clips:
        if one.duration_s is None:
            return None
        total_s += one.duration_s
    return round(FRAMES_PER_S * total_s) * _FRAME_BYTES


def _clips(train: Sequence[Utterance] | None, settings: EncoderSettings) -> str:
    if train is None:
        return "a manifest is not here, so it is not known how many clips there are"
    held_out = sum(one.speaker in settings.hold_out for one in train)
    return f"{len(train) - held_out:,} clips to train on, {held_out:,} held out"


def _measuring(features: Path) -> str:
    there = (features / "files.txt").exists()
    return f"{features}: " + (
        "features are there; they are measured anew if they are of other clips"
        if there
        else "features are measured into it before the first step"
    )
