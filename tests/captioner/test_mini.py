"""The built-in model on real recordings: both runtimes, in float and in int8."""

import json
from functools import cache
from pathlib import Path

import pytest

from aligncap.captioner.captioner import Preprocessor
from aligncap.captioner.checkpoint import load_vocabulary, read_meta
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.loading import MODELS
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import CT2Runtime, DecodeOptions, LanguageRuntime, ResponseRules
from aligncap.clues import acoustic_prompt, emotion_of, measured_clues
from aligncap.tokenizers import open_tokenizer
from captioner.dequantized import torch_twin

pytestmark = pytest.mark.speech_data

MINI = MODELS["mini"]
CLIPS = 50


@pytest.fixture(scope="module")
def mini() -> Path:
    if not (MINI / "ct2").is_dir():
        pytest.skip(f"needs the built-in model in {MINI}")
    return MINI


def clips(speech: Path) -> list[Path]:
    """Ten of each corpus, spread over its manifest."""
    found = []
    for manifest in sorted(speech.glob("*/manifest.jsonl")):
        lines = manifest.read_text("utf-8").splitlines()
        chosen = lines[:: max(1, len(lines) // 10)][:10]
        found += [manifest.parent / json.loads(line)["file"] for line in chosen]
    return found[:CLIPS]


@cache
def prompts(mini: Path, speech: Path) -> list[tuple[int, ...]]:
    """What the model reads of each clip, half of them to be captioned in Chinese."""
    meta = read_meta(mini)
    builder = PromptBuilder(load_vocabulary(mini, meta), meta.prompts)
    listener = Preprocessor(open_tokenizer("builtin", mini), meta.limits.max_speech_s)
    read = []
    for number, clip in enumerate(clips(speech)):
        heard, language = listener.listen(clip), "zh" if number % 2 else "en"
        clues = measured_clues(heard.facts) if meta.act_mode == "measured" else ()
        act = acoustic_prompt(clues, language)
        read.append(builder.student(heard.tokens, language=language, act=act).ids)
    return read


def rules(mini: Path) -> ResponseRules:
    vocabulary, meta = load_vocabulary(mini), read_meta(mini)
    return ResponseRules(vocabulary.text_rows, vocabulary.stop_ids(meta.limits.stop_characters))


def said(runtime: LanguageRuntime, mini: Path, speech: Path, beam_size: int) -> list[str]:
    limits = read_meta(mini).limits
    options = DecodeOptions(
        beam_size=beam_size, min_length=limits.min_tokens, max_length=limits.max_tokens
    )
    vocabulary = load_vocabulary(mini)
    return [vocabulary.decode(h.ids) for [h] in runtime.generate(prompts(mini, speech), options)]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_both_float_runtimes_caption_real_clips_alike(mini, speech_data, beam_size) -> None:
    in_torch = TorchRuntime(torch_twin(mini / "ct2", load_vocabulary(mini)), rules(mini))
    in_ct2 = CT2Runtime(mini / "ct2", rules(mini), compute_type="float32")
    expected = said(in_torch, mini, speech_data, beam_size)
    assert said(in_ct2, mini, speech_data, beam_size) == expected
    assert len(expected) == CLIPS
    assert len(set(expected)) > CLIPS // 3, "a model that always says the same proves little"


def test_int8_names_the_same_emotion(mini, speech_data) -> None:
    """Activations in int8 as well, against float: at most 5 % of the captions name another."""
    small, whole = (
        said(CT2Runtime(mini / "ct2", rules(mini), compute_type=kind), mini, speech_data, 4)
        for kind in ("int8", "float32")
    )
    others = sum(emotion_of(a) != emotion_of(b) for a, b in zip(small, whole, strict=True))
    assert others <= 0.05 * CLIPS
