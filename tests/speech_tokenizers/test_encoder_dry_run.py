"""What a dry run says of an encoder recipe, against what training holds and writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aligncap.errors import DataError
from aligncap.tokenizers import encoder_training
from aligncap.tokenizers.encoder import SpeechEncoder
from aligncap.tokenizers.encoder_training import EncoderSettings, plan
from aligncap.training.checkpoints import (
    gather,
    kept_weights,
    make_optimizer,
    moments_of,
    save_checkpoint,
)
from aligncap.training.settings import FitSettings
from speech_tokenizers.test_encoder import SIZE
from speech_tokenizers.test_encoder_training import made_up, settings_of


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
    kept = {name: gather(tensors, keep=True) for name, tensors in files.items()}
    folder = save_checkpoint(tmp_path, 1, files=kept, state={})
    written = sum(file.stat().st_size for file in folder.iterdir())
    assert found["disk_bytes"]["checkpoints"] == pytest.approx(3 * written, rel=0.15)

    # The store has what was measured, and it is the seconds that tell how much that is.
    monkeypatch.setattr(encoder_training, "measure_file", made_up)
    corpus = encoder_training.prepare(settings)
    frames = sum(corpus.store.frames(n) for n in range(len(corpus.store)))
    assert frames == pytest.approx(480, rel=0.15)
    stored = sum(
        (tmp_path / "features" / f"{name}.npy").stat().st_size for name in ("mel", "pitch")
    )
    assert found["disk_bytes"]["features"] / 480 * frames == pytest.approx(stored - 256)


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
