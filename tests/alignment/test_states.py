"""What a model makes of speech and of text, against a forward pass of transformers by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap import audio
from aligncap.alignment.states import Reading, answers
from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import load_torch
from support.captioner import write_model

SAID = ("A man sounds angry.", "A woman sounds sad and slow.")


def test_states_are_those_that_the_answer_was_predicted_from(
    tmp_path: Path, example_clips: list[Path]
) -> None:
    folder = write_model(tmp_path / "model")
    clips = [Reading(*one) for one in zip(example_clips[:2], SAID, strict=True)]
    found = answers(folder, clips, language="en")
    captioner, model = load(folder, runtime="torch", beam_size=1), load_torch(folder)
    assert found.speech.shape == found.text.shape == (2, model.width)
    assert not np.allclose(found.speech, found.text, atol=1e-3)
    builder = captioner.generator.prompts
    tokens = captioner._preprocessor.tokenizer.encode
    for number, clip in enumerate(clips):
        prompt = builder.student(tokens(audio.load(clip.recording)), language="en")
        options = captioner.generator.options(1)
        ((answer, *_),) = captioner.generator.runtime.generate([prompt], options)
        ids = torch.tensor([[*prompt, *answer.ids]])
        with torch.inference_mode():
            states = model.bare.model(ids).last_hidden_state[0]
        expected = states[len(prompt) - 1 :].mean(dim=0).numpy()
        assert found.speech[number] == pytest.approx(expected, abs=1e-4)
