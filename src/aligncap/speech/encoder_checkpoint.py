"""The built-in encoder on disk: config.json and model.safetensors, and its ONNX form."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.acoustics.frontend import MELS
from aligncap.errors import MissingModelError
from aligncap.speech.builtin import CODEBOOK_SIZE, ENCODER_FILE
from aligncap.speech.encoder import EncoderConfig, SpeechEncoder
from aligncap.speech.features import FRAMES_A_TOKEN, PROSODY, VIEWS

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def save_encoder(folder: Path, model: SpeechEncoder) -> None:
    """Write the encoder's size and weights into `folder`, and its ONNX form beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(asdict(model.config), indent=1) + "\n"
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    export_encoder(model, folder / ENCODER_FILE)


def load_encoder(folder: Path) -> SpeechEncoder:
    """The encoder that `save_encoder` wrote, ready to read speech."""
    if not (folder / WEIGHTS_FILE).exists():
        raise MissingModelError(
            f"{folder}: holds no speech encoder; run: aligncap train recipes/mini/encoder.toml"
        )
    config = EncoderConfig(**json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    model = SpeechEncoder(config)
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model.eval()


class _Exported(nn.Module):
    """What ONNX Runtime computes of one utterance at a time."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, views: Tensor, prosody: Tensor, heard: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reading = self.encoder(views, prosody, heard)
        female = reading.gender.sigmoid()
        return reading.codes, reading.emotion.softmax(-1), female, reading.pace.exp()


def export_encoder(model: SpeechEncoder, path: Path) -> None:
    """Write the encoder as ONNX: `views` [1, 2, frames, 64], `prosody` [1, frames, 6] and `heard`
    [1, frames], frames a multiple of 8, to `codes`, `emotion` (probabilities), `female`, `pace`."""
    frames = 12 * FRAMES_A_TOKEN
    example = (
        torch.zeros(1, VIEWS, frames, MELS),
        torch.zeros(1, frames, PROSODY),
        torch.ones(1, frames),
    )
    tokens = torch.export.Dim("tokens", min=2, max=4096)
    training = model.training
    exported = _Exported(model).eval()
    program = torch.onnx.export(
        exported,
        example,
        dynamo=True,
        input_names=["views", "prosody", "heard"],
        output_names=["codes", "emotion", "female", "pace"],
        dynamic_shapes={
            "views": {2: tokens * FRAMES_A_TOKEN},
            "prosody": {1: tokens * FRAMES_A_TOKEN},
            "heard": {1: tokens * FRAMES_A_TOKEN},
        },
        verbose=False,
    )
    model.train(training)
    if program is None:
        raise RuntimeError("torch gave no ONNX program")
    model_proto = program.model_proto
    _forget_origin(model_proto.graph)
    model_proto.metadata_props.add(key=CODEBOOK_SIZE, value=str(model.config.codebook_size))
    path.write_bytes(model_proto.SerializeToString())


def _forget_origin(graph: Any) -> None:
    """Drop what torch notes of the source of every node: paths of the machine it ran on."""
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
