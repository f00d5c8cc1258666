"""What a captioning model makes of the same clips as speech and as text (Figure 3).

A clip is read twice: as speech, and as text. The text is what stands for speech in training: of a
model that aligns before decoding the caption's own vector in the joint space, of any other the
teacher's prompt (P_act and the caption, decision 4), read by the teacher. Either time the language
model writes its caption, greedily, and the last hidden states that its tokens were predicted from
are averaged: a vector of what it answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aligncap.alignment.joint_features import JointFeatures
from aligncap.alignment.teacher import batch_of
from aligncap.audio import load
from aligncap.captioner.captioner import open_speech_tokenizer
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.preparing import Preprocessor
from aligncap.captioner.prompts import (
    PromptBuilder,
    SharedPromptRow,
    TeacherPromptParts,
    student_acoustic_prompt,
)
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.clues import acoustic_prompt, find_clues
from aligncap.tokenizers.features import feature_tokens

TEACHER_PROMPT = "act+sem"
_BATCH = 16

States = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reading:
    """A clip to be read as speech and as text."""

    recording: Path
    caption: str
    """The caption that stands for it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Mean last hidden states of the answers, each [clips, width]."""

    speech: States
    text: States


def answers(
    folder: Path, clips: Sequence[Reading], *, language: str, teacher: Path | None = None
) -> Answers:
    """What the model in `folder` answers to each clip as speech and as text.

    Of a model that does not align before decoding, `teacher` reads the text (the model itself, if
    None). DataError or MissingModelError where a folder does not hold what it should.
    """
    model, meta = load_torch(folder), read_meta(folder)
    tokenizer = open_speech_tokenizer(folder, meta)
    builder = PromptBuilder(model.vocabulary, meta.prompts, vectors=model.vectors)
    preprocessor = Preprocessor(tokenizer, meta.limits.max_speech_s)
    prompts = []
    for clip in clips:
        heard = preprocessor.prepare(load(clip.recording))
        act = student_acoustic_prompt(meta.act_mode, heard.facts, heard.tokens, language)
        prompts.append(builder.student(heard.tokens, language=language, act=act))
    options = DecodeOptions(
        beam_size=1, min_length=meta.limits.min_tokens, max_length=meta.limits.max_tokens
    )
    rules = ResponseRules.of(model.vocabulary, meta.limits.stop_characters)
    speech = _states(model, rules, prompts, options)
    if isinstance(tokenizer, JointFeatures):
        vectors = tokenizer.space.embed_texts([clip.caption for clip in clips])
        written = [builder.student(feature_tokens(one[None]), language=language) for one in vectors]
        return Answers(speech, _states(model, rules, written, options))
    reader = load_torch(teacher) if teacher is not None else model
    reads = PromptBuilder(reader.vocabulary, meta.prompts)
    parts = [
        TeacherPromptParts(act=acoustic_prompt(find_clues(clip.caption, language), language),
                           sem=clip.caption)
        for clip in clips
    ]  # fmt: skip
    texts = [reads.teacher(one, language=language, teacher_prompt=TEACHER_PROMPT) for one in parts]
    rules = ResponseRules.of(reader.vocabulary, meta.limits.stop_characters)
    return Answers(speech, _states(reader, rules, texts, options))


def _states(
    model: CaptionModel,
    rules: ResponseRules,
    prompts: Sequence[Sequence[int]],
    options: DecodeOptions,
) -> States:
    """The mean state of the greedy answer to each prompt. [prompts, width]"""
    runtime = TorchRuntime(model, rules)
    found = [hypotheses[0].ids for hypotheses in runtime.generate(prompts, options)]
    rows = [
        SharedPromptRow(prompt, ((*ids, model.vocabulary.eos_id),))  # type: ignore[arg-type]
        for prompt, ids in zip(prompts, found, strict=True)
    ]
    means = []
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = batch_of(model, rows[start : start + _BATCH])
            states = model.predicting_states(batch)
            total = states.new_zeros(len(batch.response_lengths), states.shape[-1])
            total = total.index_add(0, batch.target_response, states)
            means.append((total / batch.response_lengths[:, None]).float().cpu().numpy())
    return np.concatenate(means)
