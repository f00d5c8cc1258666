"""Sentence similarity as SECap reports it: the cosine of sentence embeddings, × 100.

Any encoder in a folder that transformers reads will do, and what it was trained on decides what
the number means. The folder's own pooling is used where it is written down in the way of
sentence-transformers, else the mean over tokens. A clip's value is the mean over its references.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aligncap.errors import DataError, MissingModelError
from aligncap.metrics import scores
from aligncap.storage import fingerprint_of_folder

BATCH = 64
MAX_TOKENS = 512
"""Of a text; a model may take fewer."""

POOLINGS = {
    "mean": "mean",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
"""Names of sentence-transformers, now and before version 5, of the poolings that run here."""

LAYERS = ("Transformer", "Pooling", "Normalize")
"""Layers of modules.json that run here; to normalise changes no cosine."""


class SentenceEncoder:
    """A sentence encoder of a folder; every text is encoded once."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.fingerprint = fingerprint(folder)
        self.pooling = pooling_of(folder)
        if not (folder / "config.json").is_file():
            raise MissingModelError(
                f"{folder}: no sentence encoder; --encoder names a folder with config.json, "
                "model.safetensors and a tokenizer"
            )
        try:
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise MissingModelError(
                f"{folder}: cannot be opened as an encoder ({reason})"
            ) from error
        self._model: Any = model.eval()
        positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
        if model.config.model_type in ("roberta", "xlm-roberta"):
            positions -= 2  # counted from behind the padding's
        self._max_tokens = int(min(MAX_TOKENS, positions, self._tokenizer.model_max_length))
        self._embeddings: dict[str, scores.Floats] = {}

    def __call__(self, texts: Sequence[str]) -> scores.Floats:
        """Embeddings of length 1, shape [texts, width]."""
        new = sorted({text for text in texts if text not in self._embeddings}, key=len)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._embeddings.update(zip(batch, self._encode(batch), strict=True))
        return np.stack([self._embeddings[text] for text in texts])

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> scores.Floats:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        states = self._model(**inputs).last_hidden_state.float()
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:  # the mean over tokens that are not padding
            weights = inputs["attention_mask"][..., None].to(states.dtype)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
        unit = torch.nn.functional.normalize(pooled, dim=-1)
        return np.asarray(unit.numpy(), dtype=np.float64)


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
    patterns = ("*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/*.json")
    files = {file for pattern in patterns for file in folder.glob(pattern)}
    return fingerprint_of_folder(folder, sorted(files))


class Similarity:
    """Mean cosine between a hypothesis and its references, by one encoder."""

    name = "similarity"

    def __init__(self, encoder: SentenceEncoder, *, label: str) -> None:
        self._encoder = encoder
        self.variant = (
            f"{self.name}:cosine|encoder:{label}@{encoder.fingerprint[:8]}|pool:{encoder.pooling}"
        )

    def measure(self, clips: list[scores.ScoredClip]) -> scores.Statistics:
        """As `Metric`; an empty hypothesis is 0 and is not encoded."""
        spoken = [clip for clip in clips if clip.hypothesis.strip()]
        self._encoder([text for clip in spoken for text in (clip.hypothesis, *clip.references)])
        values = np.zeros(len(clips))
        for place, clip in enumerate(clips):
            if clip.hypothesis.strip():
                hypothesis, *references = self._encoder((clip.hypothesis, *clip.references))
                values[place] = np.mean([hypothesis @ reference for reference in references])
        return scores.mean_of_clips(values)


def open_similarity(name: str, options: scores.MetricOptions) -> Similarity:
    """`similarity`; MissingModelError where no encoder is named or the folder holds none."""
    if options.encoder is None:
        raise MissingModelError(f"{name} needs a sentence encoder: give its folder by --encoder")
    label = scores.signature_text(options.encoder.resolve().name)
    return Similarity(SentenceEncoder(options.encoder), label=label)
