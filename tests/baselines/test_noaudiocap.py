"""The prefix mapper against its equations for one clip, and the names of its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.alignment.joint_features import open_joint
from aligncap.baselines.noaudiocap import PrefixMapper
from aligncap.baselines.released import RELEASED, ReleasedSettings
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, collate, to_torch
from aligncap.errors import DataError, RecipeError
from support.clap import SOUND, microsoft_clap
from support.recipe_runs import run


def normed(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def by_hand(vector: np.ndarray, of: dict[str, np.ndarray], heads: int) -> np.ndarray:
    constants = of["prefix_const"]
    count, width = constants.shape
    x = (of["linear.weight"] @ vector + of["linear.bias"]).reshape(count, width)
    x = np.concatenate((x, constants))
    layer = 0
    while f"transformer.layers.{layer}.norm1.weight" in of:
        name = f"transformer.layers.{layer}"
        given = normed(x, of, f"{name}.norm1")
        query = given @ of[f"{name}.attn.to_queries.weight"].T
        key, value = np.split(given @ of[f"{name}.attn.to_keys_values.weight"].T, 2, axis=1)
        found = np.zeros_like(query)
        size = width // heads
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / np.sqrt(size)
            shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            found[:, part] = shares @ value[:, part]
        x = x + found @ of[f"{name}.attn.project.weight"].T + of[f"{name}.attn.project.bias"]
        given = normed(x, of, f"{name}.norm2")
        inner = given @ of[f"{name}.mlp.fc1.weight"].T + of[f"{name}.mlp.fc1.bias"]
        x = x + np.maximum(inner, 0) @ of[f"{name}.mlp.fc2.weight"].T + of[f"{name}.mlp.fc2.bias"]
        layer += 1
    return x[count:]


def test_a_clips_vector_becomes_a_prefix() -> None:
    torch.manual_seed(0)
    mapper = PrefixMapper(6, 8, vectors=3, layers=2, heads=2).eval()
    weights = {name: one.detach().double().numpy() for name, one in mapper.state_dict().items()}
    features = torch.randn(2, 4, 6)
    found = mapper(features, torch.tensor([1, 3])).detach().numpy()
    assert found.shape == (2, 3, 8)
    for clip, frames in enumerate((1, 3)):
        vector = features[clip, :frames].double().numpy().mean(0)  # padding is not looked at
        np.testing.assert_allclose(found[clip], by_hand(vector, weights, 2), atol=1e-5)


def test_its_sizes_are_those_of_microsofts_captioner() -> None:
    """ClipCap's mapper as clapcap has it: 40 constants, 8 layers, 1024 to 768."""
    with torch.device("meta"):
        shapes = {n: tuple(one.shape) for n, one in PrefixMapper(1024, 768).state_dict().items()}
    assert shapes["linear.weight"] == (40 * 768, 1024)
    assert shapes["prefix_const"] == (40, 768)
    assert shapes["transformer.layers.7.attn.to_keys_values.weight"] == (1536, 768)
    assert shapes["transformer.layers.7.mlp.fc1.weight"] == (1536, 768)
    assert "transformer.layers.0.attn.to_queries.bias" not in shapes
    assert "transformer.layers.8.norm1.weight" not in shapes
    with pytest.raises(RecipeError, match="30 numbers over 8 heads"):
        PrefixMapper(4, 30)


def test_the_published_captioner_is_read(tmp_path: Path) -> None:
    """clapcap's names at small random size: the prefix by hand, then GPT-2 by itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "msclap"
    microsoft_clap(folder)
    torch.manual_seed(1)
    mapper = PrefixMapper(12, 16, vectors=3, layers=2, heads=2)
    config = GPT2Config.from_pretrained(folder / "gpt2")
    gpt = GPT2LMHeadModel(config).eval()
    state = {f"clap_project.{name}": one for name, one in mapper.state_dict().items()}
    state |= {f"gpt.{name}": one for name, one in gpt.state_dict().items()}
    state |= {"clap.projection.linear1.weight": torch.zeros(2, 2)}
    path = tmp_path / "clapcap_weights_2023.pth"
    torch.save({"model": state}, path)
    settings = ReleasedSettings(
        system="noaudiocap", checkpoint=path, language_model=str(folder / "gpt2"), encoder=folder,
        heads=2, languages=("en",), instructions={"en": "Describe it.\n"},
    )  # fmt: skip
    run(RELEASED.run, settings, tmp_path / "run")
    model = load_torch(tmp_path / "run" / "model")
    heard = open_joint(folder).encode(SOUND)
    assert heard.features is not None
    weights = {name: one.double().numpy() for name, one in mapper.state_dict().items()}
    prefix = by_hand(heard.features.read()[0].astype(np.float64), weights, 2)
    builder = PromptBuilder(model.vocabulary, read_meta(tmp_path / "run" / "model").prompts,
                            vectors=model.vectors)  # fmt: skip
    prompt = builder.student(heard, language="en")
    said = (5, 3, 2)
    batch = to_torch(collate([SharedPromptRow(prompt, (said,))], pad_id=0))
    with torch.no_grad():
        found = model.text_logits(batch)
        table = gpt.get_input_embeddings()
        given = torch.cat(
            (torch.tensor(prefix, dtype=torch.float32), table(torch.tensor(said[:-1])))
        )
        expected = gpt(inputs_embeds=given[None]).logits[0, len(prefix) - 1 :]
    np.testing.assert_allclose(found.numpy()[:, : expected.shape[1]], expected.numpy(), atol=1e-5)
    torch.save({"model": {**state, "clap_project.linear.bias": torch.ones(2)}}, path)
    with pytest.raises(DataError, match=r"clap_project.linear.bias has the shape \(2,\)"):
        run(RELEASED.run, settings, tmp_path / "other")
