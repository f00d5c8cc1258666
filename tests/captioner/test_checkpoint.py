"""Model folders: what is saved comes back to the bit, and what is wrong is said in one line."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from aligncap.captioner.checkpoint import (
    load_torch,
    load_vocabulary,
    model_fingerprint,
    read_meta,
    save,
    write_meta,
)
from aligncap.captioner.model import CaptionModel, add_adapter
from aligncap.captioner.prompts import collate, to_torch
from aligncap.errors import DataError, MissingModelError, RecipeError, UnknownNameError
from support.captioner import random_adapter, random_rows, tiny_lm, tiny_meta, tiny_model


@pytest.fixture(scope="module")
def model() -> CaptionModel:
    return tiny_model()


def logits(model: CaptionModel) -> torch.Tensor:
    rows = random_rows(model.vocabulary, seed=1, rows=2, responses=2)
    with torch.no_grad():
        return model.eval().response_logits(to_torch(collate(rows, model.vocabulary.pad_id)))


def suffixes(folder) -> set[str]:
    return {file.suffix for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_a_model_comes_back_to_the_bit_from_no_pickle(kind, tied, tmp_path):
    model = tiny_model(kind, tied=tied)
    saved = save(tmp_path, model, tiny_meta())
    assert read_meta(tmp_path) == saved == tiny_meta()
    again = load_torch(tmp_path)
    assert not again.training
    assert torch.equal(logits(again), logits(model))
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)
    assert suffixes(tmp_path) == {".json", ".md", ".safetensors"}


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_comes_back_with_its_base(tied, tmp_path):
    base = tmp_path / "base"
    tiny_lm("gpt2", tied=tied).save_pretrained(base)
    adapted = random_adapter(tiny_model("gpt2", tied=tied))
    saved = save(tmp_path / "model", adapted, tiny_meta(base=str(base), weights="adapter"))
    assert saved.weights == "adapter"
    assert (tmp_path / "model/adapter/adapter_model.safetensors").exists()
    assert not (tmp_path / "model/model.safetensors").exists()
    again = load_torch(tmp_path / "model", trainable=True)
    assert any(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(logits(again), logits(adapted))


def test_a_base_that_is_not_here_or_not_given_is_named(tmp_path):
    adapted = add_adapter(tiny_model("gpt2"))
    with pytest.raises(RecipeError, match="set `base`"):
        save(tmp_path, adapted, tiny_meta())
    save(tmp_path, adapted, tiny_meta(base="nobody/no-such-model", weights="adapter"))
    with pytest.raises(MissingModelError, match="hf download nobody/no-such-model"):
        load_torch(tmp_path)


def test_saving_again_replaces_only_a_model(model, tmp_path):
    encoder = tmp_path / "given"
    encoder.mkdir()
    (encoder / "encoder.onnx").write_bytes(b"weights")
    save(tmp_path / "model", model, tiny_meta(), encoder=encoder)
    assert (tmp_path / "model" / "encoder" / "encoder.onnx").read_bytes() == b"weights"
    (tmp_path / "model" / "left.txt").write_text("over")
    save(tmp_path / "model", model, tiny_meta(name="newer"))
    assert read_meta(tmp_path / "model").name == "newer"
    assert not (tmp_path / "model" / "left.txt").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"model", "given"}

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only-copy.tex").write_text("years")
    with pytest.raises(DataError, match="something else"):
        save(tmp_path / "thesis", model, tiny_meta())
    assert (tmp_path / "thesis" / "only-copy.tex").read_text() == "years"


def test_the_card_says_what_people_should_know(model, tmp_path):
    save(tmp_path, model, tiny_meta())
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    words = ("# tiny", "CC BY-NC-SA 4.0", "Not for", "anybody", "0.1 [toy]", "ab12", "en, zh")
    assert [word for word in words if word not in card] == []
    assert "Good for" not in card  # nothing was said, so no empty heading


def changed(folder, **changes) -> None:
    path = folder / "aligncap.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_of_something_else_is_named(model, tmp_path):
    with pytest.raises(MissingModelError, match="nowhere: no such model folder"):
        read_meta(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MissingModelError, match="is no AlignCap model"):
        read_meta(tmp_path)
    save(tmp_path / "model", model, tiny_meta())
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(MissingModelError, match="exported"):
        load_torch(tmp_path / "model")
    changed(tmp_path / "model", format=2, something_new=[])
    with pytest.raises(MissingModelError, match="pip install -U aligncap"):
        read_meta(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"act_mode": "guessed"}, "guessed"),
        ({"languages": "en"}, "languages"),
        ({"langages": ["en"]}, "languages"),
        ({"vocabulary": {}}, "codebooks"),
        ({"limits": {"max_tokens": 0}}, "limits"),
        ({"format": "one"}, "damaged"),
    ],
)
def test_damaged_meta_names_file_and_entry(model, tmp_path, changes, said):
    save(tmp_path, model, tiny_meta())
    changed(tmp_path, **changes)
    with pytest.raises(DataError, match=r"aligncap\.json") as caught:
        read_meta(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "tiny"}'])
def test_a_file_that_is_no_meta_is_damaged(tmp_path, content):
    (tmp_path / "aligncap.json").write_text(content)
    with pytest.raises(DataError, match=r"aligncap\.json: is damaged"):
        read_meta(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"languages": ("fr",)}, UnknownNameError, "language"),
        ({"languages": ()}, RecipeError, "at least one language"),
        ({"base": "some/model"}, RecipeError, "base"),
    ],
)
def test_meta_is_checked_at_birth(changes, error, said):
    with pytest.raises(error, match=said):
        tiny_meta(**changes)


def test_meta_and_vocabulary_are_read_without_torch(model, tmp_path):
    save(tmp_path, model, tiny_meta())
    code = (
        "import sys; from pathlib import Path\n"
        "from aligncap.captioner.checkpoint import load_vocabulary, read_meta\n"
        "folder = Path(sys.argv[1])\n"
        "print(read_meta(folder).name, load_vocabulary(folder).size, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["tiny", str(load_vocabulary(tmp_path).size), "False"]


def test_scores_in_the_notes_leave_the_fingerprint_as_it_was(tmp_path):
    meta = tiny_meta()
    write_meta(tmp_path, meta)
    (tmp_path / "weights.bin").write_bytes(b"1")
    before = model_fingerprint(tmp_path)
    write_meta(tmp_path, replace(meta, notes=replace(meta.notes, scores={"recall": "0.7"})))
    assert read_meta(tmp_path).notes.scores == {"recall": "0.7"}
    assert model_fingerprint(tmp_path) == before
    write_meta(tmp_path, replace(meta, notes=replace(meta.notes, license="another")))
    assert model_fingerprint(tmp_path) != before
    (tmp_path / "weights.bin").write_bytes(b"2")
    assert model_fingerprint(tmp_path) != before
