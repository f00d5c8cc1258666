"""The official checkpoints' layouts, at small random sizes: what is read gives what an independent
forward of the same weights gives; what does not fit is named."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    ClapAudioConfig,
    ClapAudioModel,
    HubertConfig,
    HubertModel,
    LlamaForCausalLM,
)

from aligncap.audio import load as load_sound
from aligncap.baselines.released import RELEASED, ReleasedSettings
from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, collate, to_torch
from aligncap.errors import DataError, MissingModelError
from aligncap.tokenizers import open_tokenizer
from support.pipeline import save_llama
from support.recipe_runs import run

INNER, HEADS, QUERIES, LAYERS, HEARD, HIDDEN = 16, 4, 5, 4, 24, 32
CAPTION = "She sounds sad."
State = dict[str, Tensor]


def drawn(shapes: Mapping[str, tuple[int, ...]], *, seed: int) -> State:
    chance = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=chance) * (0.3 if len(shape) > 1 else 0.1)
        + (1.0 if "orm" in name and name.endswith("weight") else 0.0)
        for name, shape in shapes.items()
    }


def bert_attention(place: str) -> dict[str, tuple[int, ...]]:
    names = [*(f"self.{name}" for name in ("query", "key", "value")), "output.dense"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        shapes |= {f"{place}.{name}.weight": (INNER, INNER), f"{place}.{name}.bias": (INNER,)}
    norm = f"{place}.output.LayerNorm"
    return shapes | {f"{norm}.weight": (INNER,), f"{norm}.bias": (INNER,)}


def qformer_shapes() -> dict[str, tuple[int, ...]]:
    """As `BertLMHeadModel` of BLIP-2 has them, once SECap has taken its text parts away."""
    bert = "audio_Qformer.bert"
    shapes: dict[str, tuple[int, ...]] = {
        "audio_query_tokens": (1, QUERIES, INNER),
        f"{bert}.embeddings.LayerNorm.weight": (INNER,),
        f"{bert}.embeddings.LayerNorm.bias": (INNER,),
        "audio_project.weight": (INNER, HEARD),
        "audio_project.bias": (INNER,),
        "audio_llama_project.weight": (HIDDEN, INNER),
        "audio_llama_project.bias": (HIDDEN,),
    }
    for number in range(LAYERS):
        layer = f"{bert}.encoder.layer.{number}"
        shapes |= bert_attention(f"{layer}.attention")
        if number % 2 == 0:
            shapes |= bert_attention(f"{layer}.crossattention")
        shapes |= {
            f"{layer}.intermediate_query.dense.weight": (4 * INNER, INNER),
            f"{layer}.intermediate_query.dense.bias": (4 * INNER,),
            f"{layer}.output_query.dense.weight": (INNER, 4 * INNER),
            f"{layer}.output_query.dense.bias": (INNER,),
            f"{layer}.output_query.LayerNorm.weight": (INNER,),
            f"{layer}.output_query.LayerNorm.bias": (INNER,),
        }
    return shapes


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(
        x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-12
    )


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def attended(state: State, name: str, x: Tensor, other: Tensor) -> Tensor:
    query, key, value = (
        linear(state, f"{name}.self.{part}", given).unflatten(-1, (HEADS, -1)).transpose(0, 1)
        for part, given in (("query", x), ("key", other), ("value", other))
    )
    weights = (query @ key.transpose(1, 2) / math.sqrt(INNER / HEADS)).softmax(-1)
    mixed = linear(state, f"{name}.output.dense", (weights @ value).transpose(0, 1).flatten(1))
    return norm(state, f"{name}.output.LayerNorm", x + mixed)


def qformer_by_hand(state: State, heard: Tensor) -> Tensor:
    """[queries, hidden] of HuBERT's states [frames, HEARD], from BERT's equations."""
    features = linear(state, "audio_project", heard)
    x = norm(state, "audio_Qformer.bert.embeddings.LayerNorm", state["audio_query_tokens"][0])
    for number in range(LAYERS):
        layer = f"audio_Qformer.bert.encoder.layer.{number}"
        x = attended(state, f"{layer}.attention", x, x)
        if number % 2 == 0:
            x = attended(state, f"{layer}.crossattention", x, features)
        inner = functional.gelu(linear(state, f"{layer}.intermediate_query.dense", x))
        outer = linear(state, f"{layer}.output_query.dense", inner)
        x = norm(state, f"{layer}.output_query.LayerNorm", x + outer)
    return linear(state, "audio_llama_project", x)


@pytest.fixture(scope="module")
def secap(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folders of a recipe, the official state, and HuBERT and LLaMA by themselves."""
    root = tmp_path_factory.mktemp("secap")
    config = HubertConfig(
        hidden_size=HEARD,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    torch.manual_seed(0)
    hubert = HubertModel(config).eval()
    config.save_pretrained(root / "hubert")
    (root / "hubert" / "preprocessor_config.json").write_text('{"do_normalize": true}', "utf-8")
    save_llama(root / "llama", hidden=HIDDEN)
    llama = LlamaForCausalLM.from_pretrained(root / "llama").eval()
    own = drawn(qformer_shapes(), seed=1)
    state = dict(own)
    for name, value in hubert.state_dict().items():
        # As torch's older weight norm called them.
        older = name.replace("parametrizations.weight.original0", "weight_g")
        state["hubert_model." + older.replace("parametrizations.weight.original1", "weight_v")] = (
            value
        )
    state |= {f"llama_model.{name}": value for name, value in llama.state_dict().items()}
    state["llama_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    state["text2vec_model.embeddings.word_embeddings.weight"] = torch.ones(3, 2)
    state["audio_Qformer.bert.embeddings.position_ids"] = torch.arange(8)[None]
    torch.save(state, root / "model.ckpt")
    return root, state, hubert, llama


def secap_settings(root: Path, **changes: Any) -> ReleasedSettings:
    given: dict[str, Any] = {
        "system": "secap",
        "checkpoint": root / "model.ckpt",
        "language_model": str(root / "llama"),
        "encoder": root / "hubert",
        "heads": HEADS,
        "languages": ("en",),
    }
    return ReleasedSettings(**given | changes)


def logits_of(folder: Path, clip: Path, weights: Path | None) -> tuple[Any, Any, Tensor]:
    """The model of a folder, the row of a clip with a caption, and the logits of that caption."""
    model = load_torch(folder)
    captioner = load(folder, tokenizer_path=weights)
    heard = captioner.meta.tokenizer
    tokenizer = open_tokenizer(heard.name, weights or folder / "encoder", **heard.options)
    builder = PromptBuilder(
        model.vocabulary, captioner.meta.prompts, vectors=captioner.meta.connector.vectors
    )
    prompt = builder.student(tokenizer.encode(load_sound(clip)), language="en")
    row = SharedPromptRow(prompt, (tuple(builder.response(CAPTION)),))
    model.double()  # in single precision, another order of sums is 2e-5
    batch = to_torch(collate([row], 0))
    assert batch.features is not None
    with torch.no_grad():
        return model, row, model.response_logits(replace(batch, features=batch.features.double()))


def test_secap_reads_and_agrees_with_its_equations(secap, tmp_path, example_clips) -> None:
    root, state, hubert, llama = secap
    made = run(RELEASED.run, secap_settings(root), tmp_path)
    clip = example_clips[0]
    model, row, found = logits_of(Path(made["model"]), clip, None)
    samples = load_sound(clip).samples.astype(np.float64)
    samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    [response] = row.responses
    instruction = model.vocabulary.encode_text(
        "Describe the speaker's emotion and voice in one sentence.\n"
    )
    bos = torch.tensor([llama.config.bos_token_id])
    with torch.no_grad():
        heard = hubert(torch.from_numpy(samples.astype(np.float32))[None]).last_hidden_state[0]
        heard, llama = heard.double(), deepcopy(llama).double()
        state = {name: value.double() for name, value in state.items()}
        embed = llama.get_input_embeddings()
        said = embed(torch.tensor([*bos, *instruction, *response[:-1]]))
        whole = torch.cat([embed(bos), qformer_by_hand(state, heard), said])
        expected = llama(inputs_embeds=whole[None]).logits[0, -len(response) :]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert load(Path(made["model"])).caption(clip).text is not None


def test_cross_attention_is_in_every_second_layer(secap, tmp_path) -> None:
    root, *_ = secap
    made = run(RELEASED.run, secap_settings(root), tmp_path)
    connector: Any = load_torch(Path(made["model"])).connector
    layers = connector.audio_Qformer.encoder.layer
    assert [hasattr(layer, "crossattention") for layer in layers] == [True, False, True, False]
    assert not any(hasattr(layer, "intermediate") for layer in layers)  # no text FFN


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"audio_project.bias": torch.zeros(3)}, r"audio_project\.bias has the shape \(3,\)"),
        ({"audio_llama_project.bias": None}, r"lacks audio_llama_project\.bias"),
        (
            {"audio_Qformer.bert.encoder.layer.1.attention.self.key.weight": None},
            r"lacks audio_Qformer\.bert\.encoder\.layer\.1\.attention\.self\.key\.weight",
        ),
        ({"hubert_model.encoder.extra": torch.zeros(1)}, r"holds hubert_model\.encoder\.extra"),
        ({"llama_model.lm_head.weight": torch.zeros(2, 2)}, r"llama_model\.lm_head\.weight has"),
    ],
)
def test_what_does_not_fit_is_named(secap, tmp_path, change, told) -> None:
    root, state, *_ = secap
    other = {name: one for name, one in {**state, **change}.items() if one is not None}
    torch.save(other, tmp_path / "model.ckpt")
    settings = secap_settings(root, checkpoint=tmp_path / "model.ckpt")
    with pytest.raises(DataError, match=told) as caught:
        run(RELEASED.run, settings, tmp_path / "out")
    assert "\n" not in str(caught.value)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def test_nothing_is_unpickled_and_what_is_missing_is_one_line(secap, tmp_path, capsys) -> None:
    root, *_ = secap
    torch.save({"audio_project.weight": Harmful()}, tmp_path / "bad.ckpt")
    with pytest.raises(DataError, match=r"bad\.ckpt"):
        run(RELEASED.run, secap_settings(root, checkpoint=tmp_path / "bad.ckpt"), tmp_path / "a")
    assert "unpickled" not in capsys.readouterr().out
    missing = secap_settings(root, checkpoint=tmp_path / "none.ckpt")
    with pytest.raises(MissingModelError, match="hf download yaoxunxu/SECaps") as caught:
        run(RELEASED.run, missing, tmp_path / "b")
    assert "models/secap" in str(caught.value)
    assert "\n" not in str(caught.value)


def official_htsat(audio: ClapAudioModel) -> State:
    """The names of the original HTSAT, with query, key and value on one another."""
    found: State = {}
    for name, value in audio.state_dict().items():
        if ".attention.self.query." in name:
            place = name.replace("audio_encoder.", "").replace(
                ".attention.self.query.", ".attn.{}."
            )
            parts = [
                audio.state_dict()[name.replace(".query.", f".{part}.")]
                for part in ("query", "key", "value")
            ]
            found[place.format("qkv")] = torch.cat(parts)
        elif not any(part in name for part in (".self.key.", ".self.value.")):
            theirs = name
            for ours, original in (
                ("audio_encoder.", ""),
                (".layernorm_before.", ".norm1."),
                (".layernorm_after.", ".norm2."),
                (".attention.self.", ".attn."),
                (".attention.output.dense.", ".attn.proj."),
                (".intermediate.dense.", ".mlp.fc1."),
                (".output.dense.", ".mlp.fc2."),
                ("batch_norm.", "bn0."),
            ):
                theirs = theirs.replace(ours, original)
            found[theirs] = value
    return found


def test_htsat_bart_reads_and_agrees_with_transformers(tmp_path, example_clips) -> None:
    torch.manual_seed(0)
    config = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        hidden_size=64,
        depths=[2, 2, 2, 2],
        num_attention_heads=[1, 2, 4, 8],
        enable_fusion=False,
    )
    audio = ClapAudioModel(config).eval()
    audio.audio_encoder.batch_norm.running_mean.fill_(-40.0)
    audio.audio_encoder.batch_norm.running_var.fill_(400.0)
    official = official_htsat(audio)
    save_llama(tmp_path / "bart")  # for its tokenizer
    bart_config = BartConfig(
        vocab_size=420,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        decoder_start_token_id=2,
        init_std=0.3,
    )
    bart = BartForConditionalGeneration(bart_config).eval()
    bart_config.save_pretrained(tmp_path / "bart")
    project = drawn({"weight": (16, 64), "bias": (16,)}, seed=2)
    model = {f"encoder.audio_enc.{name}": value for name, value in official.items()}
    model |= {f"decoder.{name}": value for name, value in bart.state_dict().items()}
    model |= {f"enc_to_dec_proj.{name}": value for name, value in project.items()}
    model["encoder.audio_enc.tscam_conv.weight"] = torch.ones(1)
    saved = {"model": model, "optimizer": {"state": {}}, "beam_size": 3, "epoch": 1, "config": {}}
    torch.save(saved, tmp_path / "best.pt")
    settings = ReleasedSettings(
        system="htsat-bart",
        checkpoint=tmp_path / "best.pt",
        language_model=str(tmp_path / "bart"),
        languages=("en",),
    )
    made = run(RELEASED.run, settings, tmp_path / "out")
    clip = example_clips[1]
    _, row, found = logits_of(Path(made["model"]), clip, None)
    [response] = row.responses

    # The model that the names were made of, and transformers' own composite of BART.
    hears = load(Path(made["model"])).meta.tokenizer
    assert hears.options == {"rate_hz": 32_000}
    tokenizer = open_tokenizer("log-mel", rate_hz=32_000)
    assert tokenizer.fingerprint == hears.fingerprint
    levels = tokenizer.encode(load_sound(clip)).features.read()
    with torch.no_grad():
        maps = audio.double()(input_features=torch.from_numpy(levels).double()[None, None])
        steps = maps.last_hidden_state.mean(2)[0].T.repeat_interleave(32, 0)
        heard = functional.linear(steps, project["weight"].double(), project["bias"].double())
        begun = torch.tensor([[2, 1, *response[:-1]]])
        expected = bart.double()(inputs_embeds=heard[None], decoder_input_ids=begun).logits[0, 1:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert load(Path(made["model"])).caption(clip).text is not None
