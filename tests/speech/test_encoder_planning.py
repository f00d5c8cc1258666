"""What a dry run says of an encoder recipe, against what training holds and writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aligncap.errors import DataError
from aligncap.speech import encoder_training
from aligncap.speech.encoder import SpeechEncoder
from aligncap.speech.encoder_data import Clip, make_batch
from aligncap.speech.encoder_planning import activation_bytes
from aligncap.speech.encoder_settings import EncoderSettings
from aligncap.speech.encoder_training import EncoderStep, plan
from aligncap.training import FitSettings, make_optimizer
from aligncap.training.checkpoints import kept_weights, moments_of, save_checkpoint
from aligncap.training.whole import gathered
from speech.test_encoder import SIZE, clip_of
from speech.test_encoder_training import made_up, settings_of


def write_manifest(folder: Path, *, duration: float | None = 0.3) -> Path:
    rows = [
        {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "made up", "emotion": "sad",
         "speaker": ("s0", "s3", "ravdess_05")[n % 3], "duration": duration}
        for n in range(24)
    ]  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def planned(settings: EncoderSettings) -> dict[str, Any]:
    found = dict(plan(settings, Path("unused")))
    json.dumps(found)
    return found


def test_the_counts_are_those_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path, [write_manifest(tmp_path)])
    found = planned(settings)
    assert found["loads"][0]["present"]
    # A third is of a speaker that no model is trained on, a third is held out.
    assert found["notes"][0] == "8 clips to train on, 8 held out"

    model = SpeechEncoder(SIZE)
    parameters = list(model.parameters())
    assert found["parameters"]["trained"] == sum(p.numel() for p in parameters)
    memory = found["memory_bytes"]
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(model, FitSettings(steps=1, learning_rate=1e-3))
    optimizer.step()
    moments = [v for state in optimizer.state.values() for v in state.values() if v.ndim]
    assert memory["optimizer"] == sum(v.nbytes for v in moments)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    files = {
        "weights": kept_weights(model),
        "optimizer": moments_of(model, optimizer),
        "average": weights,
    }
    kept = {name: gathered(tensors, keep=True) for name, tensors in files.items()}
    folder = save_checkpoint(tmp_path, 1, files=kept, state={})
    written = sum(file.stat().st_size for file in folder.iterdir())
    assert found["disk_bytes"]["checkpoints"] == pytest.approx(3 * written, rel=0.15)

    # The store has what was measured, and it is the seconds that tell how much that is.
    monkeypatch.setattr(encoder_training, "measured", made_up)
    corpus = encoder_training.prepare(settings)
    frames = sum(corpus.store.frames(n) for n in range(len(corpus.store)))
    assert frames == pytest.approx(480, rel=0.15)
    stored = sum(
        (tmp_path / "features" / f"{name}.npy").stat().st_size for name in ("mel", "pitch")
    )
    assert found["disk_bytes"]["features"] / 480 * frames == pytest.approx(stored - 256)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_grow_with_the_batch_as_they_really_do(tmp_path: Path, precision: str) -> None:
    """Weighed on two clips; here six of the same length are held, the weights left out."""
    settings = settings_of(
        tmp_path, [], batch_size=6, longest_s=0.64,
        training=FitSettings(steps=1, learning_rate=1e-3, precision=precision),
    )  # fmt: skip
    model = SpeechEncoder(SIZE)
    step = EncoderStep(model, settings)
    reckoned = activation_bytes(settings, model, step)
    batch = make_batch([clip_of(64, n) for n in range(6)], [Clip("", 0, 0)] * 6, [4.0] * 6)
    kept: dict[int, torch.UntypedStorage] = {}
    weights = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), mixed:
        loss = step(batch)["loss"]
    held = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    assert loss.requires_grad
    assert held < reckoned < 2 * held


def test_what_is_missing_is_said_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, [tmp_path / "absent.jsonl"])
    found = planned(settings)
    assert found["loads"][0]["cure"] == "make it with aligncap corpus (docs/corpora.md)"
    assert found["disk_bytes"]["features"] is None
    assert "not here" in found["notes"][0]
    manifest = write_manifest(tmp_path, duration=None)
    assert planned(settings_of(tmp_path, [manifest]))["disk_bytes"]["features"] is None
    with pytest.raises(DataError, match="corpus 'made up' has no share"):
        planned(replace(settings_of(tmp_path, [manifest]), shares={"another": 1.0}))
    with pytest.raises(DataError, match="no clip is left"):
        planned(replace(settings_of(tmp_path, [manifest]), hold_out=("s0", "s3")))
