"""CLAPs of LAION and Microsoft of official names, at small random size."""

import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    ClapAudioConfig,
    ClapAudioModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
)

from aligncap.alignment import clap
from aligncap.values import Waveform

TEXTS = ["a sad voice", "she speaks in a loud and angry voice"]
WORDS = ["!", "<pad>", "<|endoftext|>", "<unk>", *sorted({w for t in TEXTS for w in t.split()})]
SOUND = Waveform(
    (0.3 * np.random.default_rng(0).standard_normal(24_000)).astype(np.float32), "noise"
)
AUDIO = {
    "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [2, 2],
    "num_attention_heads": [2, 4], "num_hidden_layers": 2, "mlp_ratio": 2.0, "projection_dim": 12,
}  # fmt: skip


def save_tokenizer(folder: Path, pad: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=end, eos_token=end
    ).save_pretrained(folder)


def randomised(model: nn.Module) -> nn.Module:
    """Weights far from their initial values, so that none may be mistaken for another."""
    generator = torch.Generator().manual_seed(len(list(model.parameters())))
    for one in model.parameters():
        one.data = 0.2 * torch.randn(one.shape, generator=generator) + 0.1
    return model.eval()


OFFICIAL = (
    (r"^audio_encoder\.batch_norm\.", "bn0."),
    (r"^audio_encoder\.", ""),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.self\.relative", ".attn.relative"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""The way back, from transformers' names to the official ones, in this order."""


def official_htsat(model: ClapAudioModel) -> dict[str, Tensor]:
    state, found = model.state_dict(), {}
    for name, one in state.items():
        if match := re.search(r"attention\.self\.(query|key|value)\.(weight|bias)$", name):
            if match[1] == "query":
                parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
                layer = name[: match.start()].removeprefix("audio_encoder.")
                found[f"{layer}attn.qkv.{match[2]}"] = torch.cat(parts)
            continue
        for pattern, instead in OFFICIAL:
            name = re.sub(pattern, instead, name)  # noqa: PLW2901
        found[name] = one
    found["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(3)
    found["tscam_conv.weight"] = torch.zeros(2)
    return found


def projection_state(prefix: str, width: int, seed: int) -> dict[str, Tensor]:
    model = clap.Projection(width, 12)
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{prefix}{name}": torch.randn(one.shape, generator=generator)
        for name, one in model.state_dict().items()
    }


def laion_clap(folder: Path, **audio: object) -> ClapModel:
    """LAION's as transformers keeps it, the sizes of its HTSAT as `AUDIO` or as given."""
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 24, "projection_dim": 12}  # fmt: skip
    config = ClapConfig(text_config=text, audio_config={**AUDIO, **audio}, projection_dim=12)
    model = randomised(ClapModel(config))
    model.save_pretrained(folder)
    save_tokenizer(folder, "<pad>")
    ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    return model


def microsoft_clap(folder: Path) -> tuple[dict[str, Tensor], nn.Module, nn.Module]:
    """The folder as published; its weights by official names, and the towers by themselves."""
    audio = randomised(ClapAudioModel(ClapAudioConfig(**AUDIO)))
    text = randomised(
        GPT2Model(
            GPT2Config(
                vocab_size=len(WORDS),
                n_embd=16,
                n_layer=2,
                n_head=2,
                n_positions=80,
                bos_token_id=2,
                eos_token_id=2,
            )
        )
    )
    text.save_pretrained(folder / "gpt2")
    save_tokenizer(folder / "gpt2", "!")
    state = {f"audio_encoder.base.htsat.{n}": one for n, one in official_htsat(audio).items()}
    state |= {f"caption_encoder.base.{n}": one for n, one in text.state_dict().items()}
    state["caption_encoder.base.h.0.attn.bias"] = torch.ones(1, 1, 80, 80)  # of older releases
    state |= projection_state("audio_encoder.projection.", 16, 1)
    state |= projection_state("caption_encoder.projection.", 16, 2)
    state["logit_scale"] = torch.tensor(2.0)
    torch.save({"model": state, "epoch": 3}, folder / "CLAP_weights_2023.pth")
    return state, audio, text
