"""The parts of the built-in encoder's loss: pure functions of what its heads say."""

import torch
from torch import Tensor
from torch.nn import functional

from aligncap.speech.encoder import Reading
from aligncap.speech.encoder_data import Batch
from aligncap.speech.features import FRAMES_A_TOKEN


def emotion_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy against smoothed probabilities, both [batch, 8]; unlabelled rows are 0."""
    labelled = target.sum(1, keepdim=True)
    smooth = (1 - smoothing) * target + smoothing / target.shape[1] * labelled
    return -(smooth * logits.log_softmax(1)).sum(1).mean()


def gender_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy over clips whose gender is known; both [batch]."""
    known = (target >= 0).to(logits)
    each = functional.binary_cross_entropy_with_logits(logits, target.clamp(0, 1), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def pace_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error of the logarithm of the pace where it could be measured; both [batch]."""
    known = ~target.isnan()
    return (predicted - target.nan_to_num()).abs().mul(known).sum() / known.sum().clamp(min=1)


def signal_loss(reading: Reading, batch: Batch) -> Tensor:
    """Squared error of each token's mean input: first view and prosody."""
    spectrum = functional.avg_pool2d(batch.views[:, :1], (FRAMES_A_TOKEN, 1))[:, 0]
    prosody = functional.avg_pool1d(batch.prosody.transpose(1, 2), FRAMES_A_TOKEN).transpose(1, 2)
    error = (reading.signal - torch.cat((spectrum, prosody), 2)).square().mean(2)
    return (error * reading.heard).sum() / reading.heard.sum()
