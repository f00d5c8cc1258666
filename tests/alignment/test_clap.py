"""Pretrained joint spaces of official names at small random sizes, against independent forwards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    ClapFeatureExtractor,
    ClapModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from aligncap.alignment import clap
from aligncap.errors import DataError, MissingModelError
from support.clap import (
    SOUND,
    TEXTS,
    WORDS,
    laion_clap,
    microsoft_clap,
    microsoft_clap_2022,
    projection_state,
    randomised,
    save_tokenizer,
)
from support.signals import log_mel


def ids_of(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def unit(x: Tensor) -> np.ndarray:
    return functional.normalize(x.detach(), dim=-1).numpy()


@pytest.fixture(scope="module")
def laion(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClapModel]:
    folder = tmp_path_factory.mktemp("laion")
    return folder, laion_clap(folder)


def test_laions_through_transformers(laion) -> None:
    folder, model = laion
    space = clap.open_clap(folder)
    rows = [ids_of(text) for text in TEXTS]
    expected = [
        model.text_projection(model.text_model(torch.tensor([row])).pooler_output) for row in rows
    ]
    np.testing.assert_allclose(space.embed_texts(TEXTS), unit(torch.cat(expected)), atol=1e-5)
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    samples = np.repeat(SOUND.samples, 1)
    import soxr

    mel = extractor(soxr.resample(samples, 16_000, 48_000), sampling_rate=48_000,
                    return_tensors="pt")["input_features"]  # fmt: skip
    heard = model.audio_projection(model.audio_model(mel).pooler_output)
    np.testing.assert_allclose(space.embed_waveforms([SOUND]), unit(heard), atol=1e-5)
    assert space.width == 12


def projected(x: Tensor, state: dict[str, Tensor], prefix: str) -> Tensor:
    """The projection by its equation."""
    first = x @ state[f"{prefix}linear1.weight"].T
    second = (0.5 * first * (1 + torch.erf(first / 2**0.5))) @ state[f"{prefix}linear2.weight"].T
    total = first + second
    centred = total - total.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    scale, shift = (state[f"{prefix}layer_norm.{name}"] for name in ("weight", "bias"))
    return scale * centred / spread + shift


Made = tuple[Path, dict[str, Tensor], nn.Module, nn.Module]


@pytest.fixture(scope="module")
def microsoft(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("msclap")
    return (folder, *microsoft_clap(folder))


def test_microsofts_of_official_names(microsoft: Made) -> None:
    folder, state, audio, text = microsoft
    space = clap.open_clap(folder)
    ends = [text(torch.tensor([[*ids_of(one), 2]])).last_hidden_state[:, -1] for one in TEXTS]
    expected = projected(torch.cat(ends), state, "caption_encoder.projection.")
    np.testing.assert_allclose(space.embed_texts(TEXTS), unit(expected), atol=1e-5)
    import soxr

    # 7 s at 44.1 kHz, the recording again and again; librosa's mel bands in decibels.
    samples = np.resize(soxr.resample(SOUND.samples, 16_000, 44_100), 7 * 44_100)
    mel = torch.tensor(log_mel(samples, 44_100, 320, 50, 8_000))[None, None]
    heard = projected(audio(mel).pooler_output, state, "audio_encoder.projection.")
    np.testing.assert_allclose(space.embed_waveforms([SOUND]), unit(heard), atol=1e-5)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor], nn.Module]:
    folder = tmp_path_factory.mktemp("msclap-2022")
    return (folder, *microsoft_clap_2022(folder))


def cnn14_by_hand(mel: np.ndarray, state: dict[str, Tensor]) -> np.ndarray:
    """The tower's equations in double precision, of a spectrogram [frames, bands]: convolutions as
    sums over nine shifted maps."""
    own = {
        name.removeprefix("audio_encoder.base."): one.double().numpy()
        for name, one in state.items()
        if name.startswith("audio_encoder.base.")
    }

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        """By channel, the first axis."""
        scale, shift, mean, variance = (
            own[f"{name}.{part}"].reshape(-1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return scale * (x - mean) / np.sqrt(variance + 1e-5) + shift

    def convolved(x: np.ndarray, name: str) -> np.ndarray:
        padded, (_, rows, columns) = np.pad(x, ((0, 0), (1, 1), (1, 1))), x.shape
        return sum(
            np.tensordot(own[name][:, :, i, j], padded[:, i : i + rows, j : j + columns], 1)
            for i in range(3)
            for j in range(3)
        )

    x = normed(mel.T[:, :, None], "bn0")[:, :, 0].T[None]
    for number in range(1, 7):
        for part in (1, 2):
            block = f"conv_block{number}"
            x = normed(convolved(x, f"{block}.conv{part}.weight"), f"{block}.bn{part}")
            x = np.maximum(x, 0)
        if number < 6:
            channels, rows, columns = x.shape
            x = x[:, : rows // 2 * 2, : columns // 2 * 2]
            x = x.reshape(channels, rows // 2, 2, columns // 2, 2).mean((2, 4))
    x = x.mean(2)
    return np.maximum(own["fc1.weight"] @ (x.max(1) + x.mean(1)) + own["fc1.bias"], 0)


def test_microsofts_of_2022(older: tuple[Path, dict[str, Tensor], nn.Module]) -> None:
    folder, state, text = older
    space = clap.open_clap(folder)
    # [CLS] and [SEP] are "!" and "<|endoftext|>" here; the first token stands for the text.
    first = [text(torch.tensor([[0, *ids_of(one), 2]])).last_hidden_state[:, 0] for one in TEXTS]
    expected = projected(torch.cat(first), state, "caption_encoder.projection.")
    np.testing.assert_allclose(space.embed_texts(TEXTS), unit(expected), atol=1e-5)
    long = " ".join(["sad"] * 120)
    rows = torch.tensor([[0, *ids_of(long)[:98], 2]])
    cut = projected(text(rows).last_hidden_state[:, 0], state, "caption_encoder.projection.")
    np.testing.assert_allclose(space.embed_texts([long]), unit(cut), atol=1e-5)
    import soxr

    # 5 s at 44.1 kHz, the recording again and again.
    samples = np.resize(soxr.resample(SOUND.samples, 16_000, 44_100), 5 * 44_100)
    mel = log_mel(samples, 44_100, 320, 50, 14_000)
    heard = torch.from_numpy(cnn14_by_hand(mel.astype(np.float64), state)).float()[None]
    assert (heard > 0).sum() > 2
    expected = projected(heard, state, "audio_encoder.projection.")
    np.testing.assert_allclose(space.embed_waveforms([SOUND]), unit(expected), atol=1e-5)
    assert space.width == 12


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("base.conv_block3.conv1.weight", None, "lacks audio_encoder.base.conv_block3.conv1.weigh"),
        ("base.conv_block2.bn1.bias", torch.ones(5), r"bn1.bias has the shape \(5,\), not \(3,\)"),
        ("base.conv_block7.bn1.bias", torch.ones(5), "holds audio_encoder.base.conv_block7.bn1.b"),
        ("base.fc1.weight", torch.ones(8, 3), r"fc1.weight has the shape \(8, 3\), not \(8, 6\)"),
        ("base.spectrogram_extractor.stft.conv_real.weight", None, "lacks .*conv_real.weight"),
    ],
)
def test_the_first_weight_of_2022_that_does_not_fit_is_named(
    older: tuple[Path, dict[str, Tensor], nn.Module], tmp_path: Path, name, given, told
) -> None:
    folder, state, _ = older
    (tmp_path / "bert").symlink_to(folder / "bert")
    changed = without(state, f"audio_encoder.{name}")
    changed |= {} if given is None else {f"audio_encoder.{name}": given}
    torch.save({"model": changed}, tmp_path / "CLAP_weights_2022.pth")
    with pytest.raises(DataError, match=told):
        clap.open_clap(tmp_path)


@pytest.fixture(scope="module")
def paraspeech(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("paraspeech")
    speech = randomised(
        WavLMModel(
            WavLMConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2,
                num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
            )
        )
    )  # fmt: skip
    text = randomised(
        XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=24,
            )
        )
    )  # fmt: skip
    speech.config.save_pretrained(folder / "speech")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder / "speech")
    text.config.save_pretrained(folder / "text")
    save_tokenizer(folder / "text", "<pad>")
    state = {f"audio_branch.base.{n}": one for n, one in speech.state_dict().items()}
    state |= {f"text_branch.base.{n}": one for n, one in text.state_dict().items()}
    state |= projection_state("audio_projection.", 16, 1)
    state |= projection_state("text_projection.", 16, 2)
    state["log_logit_scale"] = torch.tensor(2.0)
    torch.save(state, folder / "slap-combined.pth.tar")
    return folder, state, speech, text


def test_paraspeechclap_of_official_names(paraspeech: Made) -> None:
    folder, state, speech, text = paraspeech
    space = clap.open_clap(folder)
    first = [text(torch.tensor([ids_of(one)])).last_hidden_state[:, 0] for one in TEXTS]
    expected = projected(torch.cat(first), state, "text_projection.")
    np.testing.assert_allclose(space.embed_texts(TEXTS), unit(expected), atol=1e-5)
    normed = (SOUND.samples - SOUND.samples.mean()) / np.sqrt(SOUND.samples.var() + 1e-7)
    pooled = speech(torch.tensor(normed)[None]).last_hidden_state.mean(1)
    heard = projected(pooled, state, "audio_projection.")
    np.testing.assert_allclose(space.embed_waveforms([SOUND]), unit(heard), atol=1e-5)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: one for key, one in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: without(s, "caption_encoder.base.ln_f.bias"), "lacks caption_encoder.base.ln_f"),
        (
            lambda s: s | {"caption_encoder.base.ln_f.bias": torch.ones(3)},
            r"shape \(3,\), not \(16",
        ),
        (
            lambda s: s | {"caption_encoder.base.more": torch.ones(3)},
            "holds caption_encoder.base.mo",
        ),
        (
            lambda s: without(s, "audio_encoder.base.htsat.norm.weight"),
            "lacks audio_encoder.base.h",
        ),
        (
            lambda s: s | {"audio_encoder.projection.layer_norm.bias": torch.ones(2)},
            r"audio_encoder.projection.layer_norm.bias has the shape \(2,\), not \(12,\)",
        ),
    ],
)
def test_the_first_weight_that_does_not_fit_is_named(
    microsoft: Made, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], told
) -> None:
    folder, state, *_ = microsoft
    (tmp_path / "gpt2").symlink_to(folder / "gpt2")
    torch.save({"model": change(state)}, tmp_path / "CLAP_weights_2023.pth")
    with pytest.raises(DataError, match=told):
        clap.open_clap(tmp_path)


class Harm:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("harm",)


def test_nothing_is_unpickled_and_what_is_missing_is_named(tmp_path: Path, capsys) -> None:
    with pytest.raises(MissingModelError, match="holds no CLAP; fetch one with `hf download laion"):
        clap.open_clap(tmp_path)
    path = tmp_path / "CLAP_weights_2023.pth"
    torch.save({"model": Harm()}, path)
    with pytest.raises(DataError, match=r"CLAP_weights_2023.pth: is damaged"):
        clap.open_clap(tmp_path)
    assert "harm" not in capsys.readouterr().out
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(MissingModelError, match=r"gpt2: holds no config\.json; fetch"):
        clap.open_clap(tmp_path)
