"""The built-in model on real recordings: in float and in int8."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import aligncap
from aligncap.audio import load
from aligncap.captioner.captioner import CaptionGenerator, StudentInput
from aligncap.captioner.checkpoint import MODELS, load_vocabulary, read_meta
from aligncap.captioner.preparing import Preprocessor
from aligncap.captioner.prompts import PromptBuilder, student_acoustic_prompt
from aligncap.captioner.runtimes import CT2Runtime, ResponseRules
from aligncap.clues import emotion_of
from aligncap.tokenizers import open_tokenizer
from aligncap.values import RATE_HZ

MINI = MODELS["mini"]


@pytest.mark.speech_data
def test_int8_names_the_same_emotion(speech_data: Path) -> None:
    """Activations in int8 as well, against float: at most 5 % of the captions name another."""
    if not (MINI / "ct2").is_dir():
        pytest.skip(f"needs the built-in model in {MINI}")
    meta, vocabulary = read_meta(MINI), load_vocabulary(MINI)
    preprocessor = Preprocessor(open_tokenizer("builtin", MINI), meta.limits.max_speech_s)
    given = []
    for manifest in sorted(speech_data.glob("*/manifest.jsonl"))[:5]:
        lines = manifest.read_text("utf-8").splitlines()
        for line in lines[:: len(lines) // 10][:10]:
            one = preprocessor.prepare(manifest.parent / json.loads(line)["file"])
            act = student_acoustic_prompt(meta.act_mode, one.facts, one.tokens, "en")
            given.append(StudentInput(one.tokens, act))
    captions, rules = [], ResponseRules.of(vocabulary, meta.limits.stop_characters)
    for kind in ("int8", "float32"):
        runtime = CT2Runtime(MINI / "ct2", rules, compute_type=kind)
        generator = CaptionGenerator(meta, PromptBuilder(vocabulary, meta.prompts), runtime)
        found = generator.generate(given, language="en", options=generator.options(4))
        captions.append([one[0].text for one in found])
    assert len(set(captions[0])) > 16, "always the same caption proves little"
    named = [[emotion_of(text) for text in texts] for texts in captions]
    assert sum(a != b for a, b in zip(*named, strict=True)) <= 0.05 * 50


def test_silence_around_what_is_said_has_no_part_in_it(example_clips, tmp_path) -> None:
    """Files with up to three seconds of silence more have the record of the clip alone; and so has
    each clip as an utterance of a recording of all of them."""
    captioner = aligncap.load("mini")
    # One has a pause that ends an utterance.
    paths = [one for one in example_clips if "halting" not in one.name]
    clips = [load(one).samples for one in paths]
    alone = [one.to_dict() for one in captioner.caption(paths)]
    later = []
    for number, samples in enumerate(clips):
        file = tmp_path / f"{number}.wav"
        # Frames of 10 ms begin where they do in the clip.
        around = (1600 * number, 4000 * (11 - number) + -len(samples) % 160)
        soundfile.write(file, np.pad(samples, around), RATE_HZ, subtype="FLOAT")
        later.append(file)
    recording = np.concatenate(
        [np.pad(samples, (16_000, -len(samples) % 160)) for samples in clips]
    )
    soundfile.write(tmp_path / "all.wav", recording, RATE_HZ, subtype="FLOAT")
    spoken = [one.caption for one in captioner.segments(tmp_path / "all.wav") if one.caption]
    for found in (captioner.caption(later), spoken):
        records = [one.to_dict() for one in found]
        assert [_heard(one) for one in records] == [_heard(one) for one in alone]


def _heard(record: dict) -> dict:
    """The record but for the length of the file."""
    return {key: value for key, value in record.items() if key != "duration_s"}
