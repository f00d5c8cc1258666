"""What a dry run reckons with."""

from dataclasses import dataclass

from aligncap.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateSettings:
    """What a dry run reckons with where the rows cannot tell; training does not read it."""

    speech_tokens: int = 500
    """Of one prompt: ten seconds of SpeechTokenizer's first layer."""
    text_tokens: int = 60
    """Of one prompt's clues and instruction."""
    caption_tokens: int = 40
    codebooks: int = 1
    """Of the speech tokenizer; the rows say it where they are there."""
    codebook_size: int = 1024

    def __post_init__(self) -> None:
        for name in ("speech_tokens", "text_tokens", "caption_tokens"):
            value = getattr(self, name)
            if value < 1:
                raise RecipeError(f"{name} is {value}, must be at least 1")
        if min(self.codebooks, self.codebook_size) < 1:
            raise RecipeError(f"codebooks of {self.codebooks} x {self.codebook_size} hold no code")
