"""What the way from a corpus to a served model needs: recordings, a LLaMA, a SpeechTokenizer."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch

from aligncap.audio import load
from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.values import RATE_HZ
from support.speech_tokenizers import CONFIG, official_state, save_checkpoint

OFFICIAL = CONFIG | {"n_filters": 64, "dimension": 1024, "codebook_size": 1024}
OFFICIAL["semantic_dimension"] = 768
"""The shape that is published."""

FEELINGS = {
    "happy": "She speaks quickly in a bright, cheerful voice.",
    "sad": "She sounds sad and speaks slowly in a low voice.",
    "angry": "An angry speaker raises a loud, sharp voice!",
}


def write_recordings(source: Path, clips: list[Path], *, length_s: float = 0.6) -> Path:
    """A folder as `aligncap corpus folder` reads it: pieces of recordings, captions in .txt, labels
    in .json beside them."""
    source.mkdir(parents=True)
    for number in range(2 * len(clips)):
        whole = load(clips[number // 2]).samples
        start = round((0.3 + 0.9 * (number % 2)) * RATE_HZ)
        piece = whole[start : start + round(length_s * RATE_HZ)]
        file = source / f"clip{number:02}.wav"
        soundfile.write(file, piece, RATE_HZ)
        feeling = list(FEELINGS)[number % len(FEELINGS)]
        file.with_suffix(".txt").write_text(f"{FEELINGS[feeling]}\n", "utf-8")
        told = {"speaker": f"s{number // 2}", "emotion": feeling, "text": f"Sentence {number}."}
        file.with_suffix(".json").write_text(json.dumps(told), "utf-8")
    return source


def save_speech_tokenizer(folder: Path) -> Path:
    """A SpeechTokenizer of the published shape and random weights, as it is published.

    Of the checkpoint's eight codebooks of 1024 entries each is drawn around what its encoder
    gives: a random codebook would name every frame alike.
    """
    state: dict[str, Any] = official_state(OFFICIAL | {"n_q": 1, "codebook_size": 60}, noise_s=2)
    drawn = state["quantizer.vq.layers.0._codebook.embed"]
    chance = torch.Generator().manual_seed(0)
    spread = 0.2 * drawn.std(0)
    del state["decoder.model.0.conv.conv.bias"]  # it stands for a decoder and fits none
    for number in range(OFFICIAL["n_q"]):
        picked = drawn[torch.randint(len(drawn), (OFFICIAL["codebook_size"],), generator=chance)]
        book = picked + spread * torch.randn(picked.shape, generator=chance)
        if number:  # what is left over lies around nothing
            book -= drawn.mean(0)
        state[f"quantizer.vq.layers.{number}._codebook.embed"] = book
    return save_checkpoint(state, folder, OFFICIAL)


def save_llama(folder: Path, *, hidden: int = 32) -> Path:
    """A LLaMA of random weights with a tokenizer of LLaMA's kind (BPE with bytes to fall back on),
    as transformers saves both; wherever it says something, it says it with conviction."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    texts = [*FEELINGS.values(), "Describe the speaker's emotion and voice in one sentence."]
    trained.train_from_iterator(texts * 4, trainer)
    table = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in table["merges"]]
    tokenizer = LlamaTokenizer(vocab=table["vocab"], merges=merges)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,  # as in LLaMA-7B
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Way:
    """The folders on the way, and what the commands printed."""

    root: Path
    recipes: Path
    said: dict[str, str]

    def run(self, *arguments: object, changes: tuple[str, ...] = (), fails: int = 0) -> str:
        """One command; its standard output, or its standard error where it is to fail."""
        out, err = io.StringIO(), io.StringIO()
        line = [str(one) for one in arguments]
        line += [part for change in changes for part in ("--set", change)]
        code = main(line, console=Console(stdout=out, stderr=err))
        assert code == fails, err.getvalue()
        return (err if fails else out).getvalue()

    def train(self, recipe: str, *changes: str) -> dict[str, Any]:
        """Run a recipe of the folder; its summary."""
        path, output = self.recipes / f"{recipe}.toml", self.root / recipe
        found: dict[str, Any] = json.loads(self.run("train", path, "-o", output, changes=changes))
        return found

    def __getitem__(self, name: str) -> Path:
        return self.root / name
