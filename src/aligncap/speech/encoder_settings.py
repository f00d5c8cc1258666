"""The recipe of kind "encoder"."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from aligncap.recipes import recipe_section
from aligncap.speech.augmentation import Augmentation
from aligncap.speech.encoder import EncoderConfig
from aligncap.training import FitSettings

FRAMES_PER_S = 100


@recipe_section
class Losses:
    """Weights of the parts of the loss."""

    emotion: float = 1.0
    gender: float = 0.3
    pace: float = 0.1
    signal: float = 0.5
    commitment: float = 0.25
    label_smoothing: float = 0.1


@recipe_section
class EncoderSettings:
    """A recipe that trains the built-in speech encoder."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests."""
    shares: Mapping[str, float]
    """How much of every batch each corpus gives, by name; made to sum to 1."""
    features: Path
    """Folder that keeps measured features from one run to the next."""
    hold_out: tuple[str, ...] = ()
    """Speakers kept for choosing between settings, besides the validation speakers."""
    batch_size: int = 32
    longest_s: float = 4.2
    """Longer clips are cut at random places."""
    mixup: float = 0.3
    masks: int = 2
    quantize_after: int = 300
    """Steps after which the heads see quantised vectors only."""
    prior_weight: float = 0.5
    """How far rare emotions are told as readily as frequent ones, 0 to 1 (`balanced`)."""
    evaluate_every: int = 500
    model: EncoderConfig = field(default_factory=EncoderConfig)
    losses: Losses = field(default_factory=Losses)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: FitSettings

    @property
    def longest_frames(self) -> int:
        """Frames of the longest clip of a batch."""
        return round(self.longest_s * FRAMES_PER_S)

    @model_validator(mode="after")
    def _trains_whole(self) -> Self:
        if self.training.sharding != "none":
            raise ValueError(
                "the speech encoder is small and is trained whole: set training.sharding to none"
            )
        return self
