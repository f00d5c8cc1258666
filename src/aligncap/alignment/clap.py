"""Pretrained joint spaces: CLAP of LAION, Microsoft's CLAP, and ParaSpeechCLAP, from their files.

Four layouts of a folder, told apart by what is in it; nothing is downloaded and no code is run:

    config.json, model.safetensors, tokenizer.json, preprocessor_config.json
        LAION's as transformers keeps it (`laion/larger_clap_music_and_speech` has heard speech)
    CLAP_weights_2023.pth, gpt2/
        Microsoft's of 2023 (`microsoft/msclap`), and the folder of GPT-2's config and tokenizer
    CLAP_weights_2022.pth, bert/
        the same of 2022, and the folder of BERT's (`google-bert/bert-base-uncased`)
    *.pth.tar, speech/, text/
        ParaSpeechCLAP (`ajd12342/paraspeechclap-combined`), and the folders of WavLM-large's and
        Granite-278m's config, preprocessor and tokenizer

Each is put together from transformers' own classes; every name and shape has to fit.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from aligncap.audio.files import samples_at
from aligncap.errors import DataError, MissingModelError
from aligncap.foreign import check_regular, reading
from aligncap.storage import fingerprint_of_files
from aligncap.tokenizers.speechtokenizer import exact_inference
from aligncap.training.pretrained import load_config, load_tokenizer
from aligncap.values import RATE_HZ, Samples, Waveform

Vectors = NDArray[np.float32]

HINT = "download it again, or another release of it"

MSCLAP_FETCH = (
    "fetch it with `hf download microsoft/msclap CLAP_weights_2023.pth --local-dir FOLDER`"
)
PARASPEECH_FETCH = "fetch it with `hf download ajd12342/paraspeechclap-combined --local-dir FOLDER`"
LAION_FETCH = "fetch one with `hf download laion/clap-htsat-unfused --local-dir FOLDER`"

MOST_TEXT_TOKENS = 77
"""Text tokens that all but Microsoft's of 2022 read."""


class Projection(nn.Module):
    """From a tower to the space: a linear layer, and what a second one adds to it, normalised."""

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, joint, bias=False)
        self.linear2 = nn.Linear(joint, joint, bias=False)
        self.layer_norm = nn.LayerNorm(joint)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width] → [batch, joint]."""
        first = self.linear1(x)
        normed: Tensor = self.layer_norm(first + self.linear2(functional.gelu(first)))
        return normed


class ConvBlock(nn.Module):
    """Two convolutions, each with its norm."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inner, frames, bands] → [batch, outer, frames, bands]."""
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


CNN14_BLOCKS = 6


class Cnn14(nn.Module):
    """The audio tower of PANNs (Kong et al. 2020), without its classifier; parts are called as in
    its checkpoints."""

    def __init__(self, bands: int, channels: Sequence[int], width: int) -> None:
        """`channels` are those after each of the six blocks."""
        super().__init__()
        self.bn0 = nn.BatchNorm2d(bands)
        for number, (inner, outer) in enumerate(pairwise((1, *channels)), start=1):
            self.add_module(f"conv_block{number}", ConvBlock(inner, outer))
        self.fc1 = nn.Linear(channels[-1], width)

    def forward(self, spectra: Tensor) -> Tensor:
        """[batch, 1, frames, bands] in decibels → [batch, width]."""
        x = self.bn0(spectra.transpose(1, 3)).transpose(1, 3)
        for number in range(1, CNN14_BLOCKS + 1):
            x = self.get_submodule(f"conv_block{number}")(x)
            if number < CNN14_BLOCKS:
                x = functional.avg_pool2d(x, 2)
        x = x.mean(3)
        return functional.relu(self.fc1(x.amax(2) + x.mean(2)))


class ClapSpace(ABC):
    """A frozen space that reads sound."""

    width: int
    """Numbers of a vector."""
    htsat: Any = None
    """transformers' `ClapAudioModel`, where that is what hears."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def fingerprint(self) -> str:
        """A hash of its files."""
        files = sorted(
            one for one in self.folder.rglob("*") if one.is_file() and one.suffix != ".md"
        )
        return fingerprint_of_files({}, files)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, [texts, width], each of unit length."""
        return self._unit(self._texts(texts[n : n + 32]) for n in range(0, len(texts), 32))

    def embed_waveforms(self, waveforms: Iterable[Waveform]) -> Vectors:
        """Vectors of recordings, [recordings, width], each of unit length; of a long one its
        beginning, as long as the model has learnt from."""
        return self._unit(map(self._sound, waveforms))

    def _unit(self, parts: Iterable[Tensor]) -> Vectors:
        with exact_inference():
            found = [functional.normalize(part.float(), dim=-1).numpy() for part in parts]
        return np.concatenate([np.empty((0, self.width), np.float32), *found])

    @abstractmethod
    def _texts(self, texts: Sequence[str]) -> Tensor:
        """[texts, width], of any length."""

    @abstractmethod
    def _sound(self, waveform: Waveform) -> Tensor:
        """[1, width], of any length."""


class LaionClap(ClapSpace):
    """transformers' ClapModel of a folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoFeatureExtractor, ClapModel

        super().__init__(folder)
        config = load_config(str(folder))  # what it names is checked, too
        with reading(folder, hint=HINT):
            read: Any = ClapModel.from_pretrained
            model, loaded = read(
                folder, config=config, local_files_only=True, use_safetensors=True,
                output_loading_info=True,
            )  # fmt: skip
            for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
                if loaded[kind]:
                    raise ValueError(f"{kind.replace('_', ' ')} {min(map(str, loaded[kind]))}")
            self.model: Any = model.eval()
            self.htsat = self.model.audio_model
            extractor: Any = AutoFeatureExtractor
            self.extractor: Any = extractor.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Any = load_tokenizer(str(folder))
        self.width = int(config.projection_dim)

    def _texts(self, texts: Sequence[str]) -> Tensor:
        return _pooled(self.model.get_text_features(**_tokens(self.tokenizer, texts)))

    def _sound(self, waveform: Waveform) -> Tensor:
        return _pooled(self.model.get_audio_features(**_features(self.extractor, waveform)))


class MicrosoftClap(ClapSpace):
    """What Microsoft's CLAPs have alike: projections of both towers, and sound at 44.1 kHz."""

    RATE_HZ, HOP, LOWEST_HZ = 44_100, 320, 50

    def _read_projections(
        self, path: Path, state: Mapping[str, Tensor], *, audio: int, text: int
    ) -> None:
        """The projections of towers of these widths."""
        self.width = _joint_width(path, state, "audio_encoder.projection.linear1.weight")
        self.projections = {
            name: _projection(path, state, f"{name}.projection.", width, self.width)
            for name, width in (("audio_encoder", audio), ("caption_encoder", text))
        }

    def _set_extractor(self, bands: int, *, window: int, longest_s: int, highest_hz: int) -> None:
        """The spectrogram that the audio tower reads."""
        from transformers import ClapFeatureExtractor

        self.extractor = ClapFeatureExtractor(
            feature_size=bands, sampling_rate=self.RATE_HZ, hop_length=self.HOP,
            fft_window_size=window, max_length_s=longest_s, frequency_min=self.LOWEST_HZ,
            frequency_max=highest_hz, truncation="rand_trunc", padding="repeat",
        )  # fmt: skip


class MicrosoftClap2022(MicrosoftClap):
    """Cnn14 and BERT, whose first token stands for a text."""

    MOST_TEXT_TOKENS = 100

    def __init__(self, folder: Path, path: Path, state: Mapping[str, Tensor]) -> None:
        """`state` are the weights of `path` in the folder."""
        from transformers import BertModel

        super().__init__(folder)
        hint = "fetch it with `hf download google-bert/bert-base-uncased --local-dir FOLDER/bert`"
        config = _config_in(folder / "bert", hint)
        place = "audio_encoder.base."
        self.cnn = cnn14_of(path, state, place)
        self.text: Any = BertModel(config)
        load_fitting(
            path, self.text, part_of(state, "caption_encoder.base."), "caption_encoder.base."
        )
        audio, text = self.cnn.fc1.out_features, config.hidden_size
        self._read_projections(path, state, audio=audio, text=text)
        self.tokenizer = load_tokenizer(str(folder / "bert"))
        spectrum = f"{place}spectrogram_extractor.stft.conv_real.weight"
        if spectrum not in state:
            raise DataError(f"{path}: lacks {spectrum}; {HINT}")
        bands = self.cnn.bn0.num_features
        with reading(path, hint=HINT):
            # Its configuration names an n_fft of 1,028, too, of which no use is made.
            window = state[spectrum].shape[-1]
            self._set_extractor(bands, window=window, longest_s=5, highest_hz=14_000)

    def _texts(self, texts: Sequence[str]) -> Tensor:
        given = _tokens(self.tokenizer, texts, self.MOST_TEXT_TOKENS)
        first = self.text(**given).last_hidden_state[:, 0]
        return _projected(self.projections["caption_encoder"], first)

    def _sound(self, waveform: Waveform) -> Tensor:
        heard: Tensor = self.cnn(_features(self.extractor, waveform)["input_features"])
        return _projected(self.projections["audio_encoder"], heard)


class MicrosoftClap2023(MicrosoftClap):
    """HTSAT and GPT-2, whose last token stands for a text."""

    def __init__(self, folder: Path, path: Path, state: Mapping[str, Tensor]) -> None:
        """`state` are the weights of `path` in the folder."""
        from transformers import GPT2Model

        super().__init__(folder)
        hint = "fetch it with `hf download openai-community/gpt2 --local-dir FOLDER/gpt2`"
        config = _config_in(folder / "gpt2", hint)
        self.htsat = htsat_of(path, state, "audio_encoder.base.htsat.")
        self.text: Any = GPT2Model(config)
        own = part_of(state, "caption_encoder.base.")
        # Masks of attention, which older releases kept among the weights.
        own = {name: one for name, one in own.items() if not _GPT2_MASK.search(name)}
        load_fitting(path, self.text, own, "caption_encoder.base.")
        audio, text = self.htsat.config.hidden_size, config.hidden_size
        self._read_projections(path, state, audio=audio, text=text)
        self.tokenizer = load_tokenizer(str(folder / "gpt2"))
        bands = self.htsat.config.num_mel_bins
        self._set_extractor(bands, window=1024, longest_s=7, highest_hz=8_000)

    def _texts(self, texts: Sequence[str]) -> Tensor:
        # Its text ends with a token of its own, is filled up with id 0, and the last token that is
        # not 0 stands for it.
        ids = [self.tokenizer(f"{text} <|endoftext|>")["input_ids"] for text in texts]
        rows = [some[:MOST_TEXT_TOKENS] for some in ids]
        longest = max(map(len, rows))
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        states = self.text(input_ids=padded, attention_mask=mask).last_hidden_state
        last = padded.ne(0).sum(1) - 1
        return _projected(
            self.projections["caption_encoder"], states[torch.arange(len(rows)), last]
        )

    def _sound(self, waveform: Waveform) -> Tensor:
        found = self.htsat(**_features(self.extractor, waveform))
        return _projected(self.projections["audio_encoder"], found.pooler_output)


class ParaSpeechClap(ClapSpace):
    """ParaSpeechCLAP: WavLM and a multilingual text encoder, for how somebody speaks."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        super().__init__(folder)
        (path,) = _one_file(folder, "*.pth.tar", PARASPEECH_FETCH)
        state = read_state(path)
        fetch = "fetch it with `hf download {} --local-dir FOLDER/{}`"
        speech = _config_in(folder / "speech", fetch.format("microsoft/wavlm-large", "speech"))
        granite = "ibm-granite/granite-embedding-278m-multilingual"
        text = _config_in(folder / "text", fetch.format(granite, "text"))
        speech.layerdrop = 0.0
        make: Any = AutoModel.from_config
        self.speech: Any = make(speech)
        self.text: Any = make(text)
        self.width = _joint_width(path, state, "audio_projection.linear1.weight")
        load_fitting(path, self.speech, part_of(state, "audio_branch.base."), "audio_branch.base.")
        load_fitting(path, self.text, part_of(state, "text_branch.base."), "text_branch.base.")
        self.speech_projection, self.text_projection = (
            _projection(path, state, f"{name}_projection.", config.hidden_size, self.width)
            for name, config in (("audio", speech), ("text", text))
        )
        self.tokenizer = load_tokenizer(str(folder / "text"))
        with reading(folder / "speech", hint=HINT):
            extractor: Any = AutoFeatureExtractor
            self.extractor: Any = extractor.from_pretrained(
                folder / "speech", local_files_only=True
            )

    def _texts(self, texts: Sequence[str]) -> Tensor:
        found = self.text(**_tokens(self.tokenizer, texts)).last_hidden_state
        return _projected(self.text_projection, found[:, 0])

    def _sound(self, waveform: Waveform) -> Tensor:
        given = self.extractor(waveform.samples, sampling_rate=RATE_HZ, return_tensors="pt")
        found = self.speech(given["input_values"]).last_hidden_state
        return _projected(self.speech_projection, found.mean(1))


def open_microsoft(folder: Path) -> MicrosoftClap:
    """Microsoft's CLAP of a folder, of the year that its weights' names tell."""
    (path,) = _one_file(folder, "*.pth", MSCLAP_FETCH)
    state = read_state(path)
    if any(name.startswith("audio_encoder.base.conv_block") for name in state):
        return MicrosoftClap2022(folder, path, state)
    return MicrosoftClap2023(folder, path, state)


LAYOUTS: tuple[tuple[str, Callable[[Path], ClapSpace]], ...] = (
    ("*.pth.tar", ParaSpeechClap),
    ("*.pth", open_microsoft),
    ("model*.safetensors", LaionClap),
)
"""Files by which a layout is told, and what opens it."""


def open_clap(folder: Path) -> ClapSpace:
    """The pretrained space of a folder, by what is in it.

    MissingModelError names what is not there and how to fetch it; DataError the first weight that
    does not fit.
    """
    for pattern, kind in LAYOUTS:
        if folder.is_dir() and any(folder.glob(pattern)):
            return kind(folder)
    raise MissingModelError(f"{folder}: holds no CLAP; {LAION_FETCH}")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, those under "model" or "state_dict" where it
    has more than weights; no code in it is run. DataError where it is something else."""
    check_regular(path, hint=HINT)
    with reading(path, hint=HINT):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("model", "state_dict"):
            if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
                loaded = loaded[name]
        if not isinstance(loaded, Mapping) or not all(
            isinstance(v, Tensor) for v in loaded.values()
        ):
            raise ValueError("holds no table of tensors")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): one for n, one in state.items() if n.startswith(prefix)}


def load_fitting(path: Path, model: nn.Module, given: Mapping[str, Tensor], prefix: str) -> None:
    """Put weights into a model, which keeps what it computes of its sizes itself, and freeze it.

    DataError names the first weight of `path` that is missing, of another shape, or too many.
    """
    wanted = {
        name: tuple(one.shape)
        for name, one in model.state_dict().items()
        if not name.endswith(_COMPUTED)
    }
    for name, shape in wanted.items():
        if name not in given:
            raise DataError(f"{path}: lacks {prefix}{name}; {HINT}")
        found = tuple(given[name].shape)
        if found != shape:
            raise DataError(f"{path}: {prefix}{name} has the shape {found}, not {shape}; {HINT}")
    for name in given:
        if name not in wanted and not name.endswith(_COMPUTED):
            raise DataError(f"{path}: holds {prefix}{name}, which the model has not; {HINT}")
    model.load_state_dict({name: given[name] for name in wanted}, strict=False)
    model.requires_grad_(requires_grad=False).eval()


_COMPUTED = ("relative_position_index", "num_batches_tracked", "position_ids", "token_type_ids")
"""How the names of buffers end that follow from sizes."""

_GPT2_MASK = re.compile(r"\.attn\.(masked_)?bias$")


HTSAT_NAMES = (
    ("bn0.", "batch_norm."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.self."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
"""Parts of names in HTSAT's official checkpoints, and in transformers' for the same, to be replaced
in this order, either way."""

HTSAT_SPLIT = ("query", "key", "value")
"""What lies on one another in the checkpoints, as "qkv"."""

HTSAT_UNUSED = re.compile(
    r"^(spectrogram_extractor|logmel_extractor|head|tscam_conv|spec_augmenter)\."
    r"|\.(attn_mask|relative_position_index)$"
)
"""The front end, the classifier, and what is computed: not of the tower."""


def htsat_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HTSAT's official weights under the names of transformers' `ClapAudioEncoder`; query, key and
    value, which lie on one another, apart."""
    found = {}
    for name, one in state.items():
        if HTSAT_UNUSED.search(name):
            continue
        for official, own in HTSAT_NAMES:
            name = name.replace(official, own)  # noqa: PLW2901
        if ".qkv." in name:
            for part, chunk in zip(HTSAT_SPLIT, one.chunk(3), strict=True):
                found[name.replace(".qkv.", f".{part}.")] = chunk
        else:
            found[name] = one
    return found


def htsat_of(path: Path, state: Mapping[str, Tensor], prefix: str) -> Any:
    """transformers' `ClapAudioModel` with the official HTSAT weights under a prefix; its sizes are
    those of the weights. DataError names the first that does not fit."""
    from transformers import ClapAudioConfig, ClapAudioModel

    own = part_of(state, prefix)
    try:
        depths: list[int] = []
        heads: list[int] = []
        while f"layers.{len(depths)}.blocks.0.norm1.weight" in own:
            layer = f"layers.{len(depths)}.blocks."
            depths.append(len({n.split(".")[3] for n in own if n.startswith(layer)}))
            heads.append(int(own[f"{layer}0.attn.relative_position_bias_table"].shape[1]))
        table = own["layers.0.blocks.0.attn.relative_position_bias_table"]
        patches = own["patch_embed.proj.weight"]
        config = ClapAudioConfig(
            window_size=(round(len(table) ** 0.5) + 1) // 2,
            num_mel_bins=len(own["bn0.weight"]),
            patch_size=patches.shape[-1],
            patch_embeds_hidden_size=len(patches),
            hidden_size=len(own["norm.weight"]),
            depths=depths,
            num_attention_heads=heads,
            num_hidden_layers=len(depths),
            mlp_ratio=len(own["layers.0.blocks.0.mlp.fc1.weight"]) / len(patches),
        )
    except KeyError as error:
        raise DataError(f"{path}: lacks {prefix}{error.args[0]}; {HINT}") from error
    model = ClapAudioModel(config)
    given = {f"audio_encoder.{name}": one for name, one in htsat_weights(own).items()}
    load_fitting(path, model, given, prefix)
    return model


CNN14_UNUSED = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.")
"""The front end and the classifier: not of the tower."""


def cnn14_of(path: Path, state: Mapping[str, Tensor], prefix: str) -> Cnn14:
    """The Cnn14 under a prefix; its sizes are those of the weights. DataError names the first that
    does not fit."""
    own = part_of(state, prefix)
    own = {name: one for name, one in own.items() if not name.startswith(CNN14_UNUSED)}
    blocks = [f"conv_block{number}.conv1.weight" for number in range(1, CNN14_BLOCKS + 1)]
    for name in ("bn0.weight", *blocks, "fc1.weight"):
        if name not in own:
            raise DataError(f"{path}: lacks {prefix}{name}; {HINT}")
    with reading(path, hint=HINT):
        channels = [len(own[name]) for name in blocks]
        model = Cnn14(len(own["bn0.weight"]), channels, len(own["fc1.weight"]))
    load_fitting(path, model, own, prefix)
    return model


def _projection(
    path: Path, state: Mapping[str, Tensor], prefix: str, width: int, joint: int
) -> Projection:
    projection = Projection(width, joint)
    load_fitting(path, projection, part_of(state, prefix), prefix)
    return projection


def _one_file(folder: Path, pattern: str, fetch: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise MissingModelError(f"{folder}: holds {len(found)} files {pattern}, not one; {fetch}")
    return found


def _config_in(folder: Path, fetch: str) -> Any:
    if not (folder / "config.json").is_file():
        raise MissingModelError(f"{folder}: holds no config.json; {fetch}")
    return load_config(str(folder))


def _tokens(
    tokenizer: Any, texts: Sequence[str], most: int = MOST_TEXT_TOKENS
) -> Mapping[str, Tensor]:
    found: Mapping[str, Tensor] = tokenizer(
        list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt"
    )
    return found


def _features(extractor: Any, waveform: Waveform) -> Mapping[str, Tensor]:
    """The input of an audio tower: of a recording longer than it reads the beginning, not a part
    that is drawn, so that the same recording has the same vector."""
    samples: Samples = samples_at(waveform, extractor.sampling_rate)[: extractor.nb_max_samples]
    given = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return {name: given[name] for name in ("input_features", "is_longer")}


def _projected(projection: Projection, x: Tensor) -> Tensor:
    found: Tensor = projection(x)
    return found


def _joint_width(path: Path, state: Mapping[str, Tensor], name: str) -> int:
    if name not in state:
        raise DataError(f"{path}: lacks {name}; {HINT}")
    return int(state[name].shape[0])


def _pooled(output: Any) -> Tensor:
    pooled: Tensor = getattr(output, "pooler_output", output)
    return pooled
