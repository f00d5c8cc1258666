"""Sentence similarity as SECap reports it: the cosine of sentence embeddings, × 100.

Any encoder in a folder that transformers reads will do, and what it was trained on decides what
the number means. The folder's own pooling is used where it is written down in the way of
sentence-transformers, else the mean over tokens. A clip's value is the mean over its references.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aligncap.errors import DataError, MissingModelError
from aligncap.metrics.scores import Floats, ScoredClip, Statistics, mean_of_clips
from aligncap.metrics.table import MetricOptions
from aligncap.storage import fingerprint_of_folder

BATCH = 64
LONGEST = 512
"""Tokens of a text that are read at most; a model may read fewer."""

POOLINGS = {
    "mean": "mean",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
"""How sentence-transformers names what is done here, now and before version 5."""

LAYERS = ("Transformer", "Pooling", "Normalize")
"""What may stand in a folder's modules.json; to normalise changes no cosine."""


class SentenceEncoder:
    """A sentence encoder of a folder; every text is encoded once."""

    def __init__(self, folder: Path) -> None:
        self.fingerprint = fingerprint(folder)
        self.pooling = pooling_of(folder)
        self._model, self._tokenizer = _load(folder)
        self._longest = _longest(self._model, self._tokenizer)
        self._known: dict[str, Floats] = {}

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Embeddings of length 1, shape [texts, width]."""
        new = sorted({text for text in texts if text not in self._known}, key=len)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._known.update(zip(batch, self._encode(batch), strict=True))
        return np.stack([self._known[text] for text in texts])

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Floats:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
        )
        states = self._model(**inputs).last_hidden_state.float()
        pooled = states[:, 0] if self.pooling == "cls" else _mean(states, inputs["attention_mask"])
        unit = torch.nn.functional.normalize(pooled, dim=-1)
        return np.asarray(unit.numpy(), dtype=np.float64)


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over tokens that are no padding; [texts, tokens, width] → [texts, width]."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def pooling_of(folder: Path) -> str:
    """ "mean" or "cls", as the folder's sentence-transformers settings say; "mean" without any.

    DataError where they ask for something else: another pooling, or a layer on top.
    """
    layers = [str(layer.get("type")).rpartition(".")[2] for layer in _json(folder / "modules.json")]
    if extra := [layer for layer in layers if layer not in LAYERS]:
        raise DataError(f"{folder}: ends in a layer {extra[0]}, which cannot be run here")
    settings = dict(_json(folder / "1_Pooling" / "config.json"))
    named = [key for key, on in settings.items() if key.startswith("pooling_mode_") and on is True]
    used = [str(settings["pooling_mode"])] if "pooling_mode" in settings else named
    if len(used) > 1 or not POOLINGS.keys() >= set(used):
        raise DataError(f"{folder}: pools by {' and '.join(used)}; known here are mean and cls")
    return POOLINGS[used[0]] if used else "mean"


def _json(path: Path) -> Any:
    """What a JSON file of the folder holds, () where it is not there."""
    if not path.is_file():
        return ()
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON; fetch the encoder again") from error


def fingerprint(folder: Path) -> str:
    """A hash of everything in the folder that embeddings depend on."""
    return fingerprint_of_folder(folder, sorted(_files(folder)))


def _files(folder: Path) -> Iterable[Path]:
    for pattern in ("*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/*.json"):
        yield from folder.glob(pattern)


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise MissingModelError(
            f"{folder}: no sentence encoder; --encoder names a folder with config.json, "
            "model.safetensors and a tokenizer"
        )
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MissingModelError(f"{folder}: cannot be opened as an encoder ({reason})") from error


def _longest(model: Any, tokenizer: Any) -> int:
    """How many tokens of a text are read."""
    places = getattr(model.config, "max_position_embeddings", None) or LONGEST
    # RoBERTa counts positions from behind the padding's.
    offset = int(model.config.model_type in ("roberta", "xlm-roberta")) * 2
    return int(min(LONGEST, places - offset, tokenizer.model_max_length))


class Similarity:
    """Mean cosine between a hypothesis and its references, by one encoder."""

    name = "similarity"

    def __init__(self, encoder: SentenceEncoder, *, label: str) -> None:
        self._encoder = encoder
        self.variant = (
            f"{self.name}:cosine|encoder:{label}@{encoder.fingerprint[:8]}|pool:{encoder.pooling}"
        )

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`; a hypothesis without a character is 0 and is not encoded."""
        spoken = [clip for clip in clips if clip.hypothesis.strip()]
        self._encoder([text for clip in spoken for text in (clip.hypothesis, *clip.references)])
        return mean_of_clips(np.array([self._cosine(clip) for clip in clips], dtype=np.float64))

    def _cosine(self, clip: ScoredClip) -> float:
        if not clip.hypothesis.strip():
            return 0.0
        hypothesis, *references = self._encoder((clip.hypothesis, *clip.references))
        return float(np.mean([hypothesis @ reference for reference in references]))


def open_similarity(name: str, options: MetricOptions) -> Similarity:
    """`similarity`; MissingModelError where no encoder is named or the folder holds none."""
    if options.encoder is None:
        raise MissingModelError(f"{name} needs a sentence encoder: give its folder by --encoder")
    label = "_".join(options.encoder.resolve().name.replace("|", "_").split())
    return Similarity(SentenceEncoder(options.encoder), label=label)
