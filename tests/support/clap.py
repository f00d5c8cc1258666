"""CLAPs of LAION and Microsoft of official names, at small random size."""

import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
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


def save_tokenizer(folder: Path, pad: str, *, around: str = "$0") -> None:
    """A tokenizer of `WORDS`; `around` is the template of its texts."""
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = "<|endoftext|>"
    special = [(word, WORDS.index(word)) for word in ("!", end)]
    tokenizer.post_processor = processors.TemplateProcessing(around, special_tokens=special)
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


CNN14_CHANNELS = (2, 3, 4, 4, 5, 6)


def cnn14_state(prefix: str) -> dict[str, Tensor]:
    """Cnn14's weights by official names, with its front end and its classifier."""
    chance = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance)

    def norm(name: str, size: int) -> dict[str, Tensor]:
        values = {"weight": 1 + drawn(size) / 4, "bias": drawn(size) / 4}
        values |= {"running_mean": drawn(size) / 4, "running_var": 0.5 + drawn(size).square()}
        values["num_batches_tracked"] = torch.tensor(7)
        return {f"{name}.{part}": one for part, one in values.items()}

    found, inner = norm("bn0", 64), 1
    found["bn0.running_mean"] -= 30.0
    found["bn0.running_var"] *= 100.0
    for number, outer in enumerate(CNN14_CHANNELS, start=1):
        block = f"conv_block{number}"
        found |= norm(f"{block}.bn1", outer) | norm(f"{block}.bn2", outer)
        found[f"{block}.conv1.weight"] = drawn(outer, inner, 3, 3) / 2
        found[f"{block}.conv2.weight"] = drawn(outer, outer, 3, 3) / 2
        inner = outer
    found |= {"fc1.weight": drawn(8, inner), "fc1.bias": drawn(8)}
    found |= {"fc_audioset.weight": drawn(5, 8), "fc_audioset.bias": drawn(5)}
    found["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(513, 1, 1024)
    found["spectrogram_extractor.stft.conv_imag.weight"] = torch.zeros(513, 1, 1024)
    found["logmel_extractor.melW"] = torch.zeros(513, 64)
    return {f"{prefix}{name}": one for name, one in found.items()}


def microsoft_clap_2022(folder: Path) -> tuple[dict[str, Tensor], nn.Module]:
    """The folder as published; its weights by official names, and the text tower by itself."""
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=110,
    )  # fmt: skip
    text = randomised(BertModel(config))
    text.config.save_pretrained(folder / "bert")
    save_tokenizer(folder / "bert", "<pad>", around="! $0 <|endoftext|>")
    state = cnn14_state("audio_encoder.base.")
    state |= {f"caption_encoder.base.{n}": one for n, one in text.state_dict().items()}
    state["caption_encoder.base.embeddings.position_ids"] = torch.arange(110)[None]
    state |= projection_state("audio_encoder.projection.", 8, 1)
    state |= projection_state("caption_encoder.projection.", 16, 2)
    state["logit_scale"] = torch.tensor(2.0)
    torch.save({"model": state, "epoch": 3}, folder / "CLAP_weights_2022.pth")
    return state, text
