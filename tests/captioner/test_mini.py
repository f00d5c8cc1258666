"""The built-in model on real recordings: in float and in int8."""

import json
from pathlib import Path

import pytest

from aligncap.captioner.captioner import CaptionGenerator, StudentInput
from aligncap.captioner.checkpoint import MODELS, load_vocabulary, read_meta
from aligncap.captioner.preparing import Preprocessor
from aligncap.captioner.prompts import PromptBuilder, student_acoustic_prompt
from aligncap.captioner.runtimes import CT2Runtime, ResponseRules
from aligncap.clues import emotion_of
from aligncap.tokenizers import open_tokenizer

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
