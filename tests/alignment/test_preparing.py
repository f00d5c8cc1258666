"""Training rows of any speech tokenizer's tokens: the built-in one's here, the paper's in
test_whole_way."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from aligncap.alignment import rows
from aligncap.alignment.examples import read_rows, read_source
from aligncap.alignment.rows import (
    TokenizerSettings,
    TokenRowsSettings,
    balanced_rows,
    make_token_rows,
    plan_token_rows,
    split_clips,
    training_row,
    with_full_stop,
    with_plain_labels,
)
from aligncap.audio import load
from aligncap.captioner.checkpoint import find_model
from aligncap.clues import emotion_of, emotions_of, find_clues, is_hedged
from aligncap.data.grammar import Plan, split_plan
from aligncap.data.manifest import Utterance
from aligncap.data.plans import meaning_of_prompt
from aligncap.data.splits import is_validation
from aligncap.errors import DataError, RecipeError
from aligncap.tokenizers import open_tokenizer
from aligncap.values import EMOTIONS, Clue, Fact, Facts, SpeechTokens
from support.corpora import lines

CLIP = Utterance(
    "ravdess_1", Path("x.wav"), corpus="ravdess", speaker="ravdess_01", gender="male",
    emotion="sad", text="Dogs are sitting by the door.",
)  # fmt: skip
VALUES = {
    "pitch_median_hz": 120.0, "pitch_offset_st": -1.0, "pitch_range_st": 6.0,
    "pitch_slope_st_per_s": -2.0, "pitch_jumps_per_s": 0.5, "loudness_db": -24.0,
    "loudness_range_db": 12.0, "loudness_slope_db_per_s": 1.0, "pace_syllables_per_s": 4.0,
    "pause_share": 0.1, "pauses_per_s": 0.25, "jitter": 1.0, "shimmer": 4.0,
    "harmonicity_db": 12.0, "spectral_tilt_db_per_octave": -6.0, "female_probability": 0.05,
}  # fmt: skip


def facts(**changes: float | None) -> Facts:
    named = {
        name: Fact(name, None, "unit", 0.0, "cannot tell")
        if value is None
        else Fact(name, value, "unit", 0.9)
        for name, value in {**VALUES, **changes}.items()
    }
    return Facts(2.0, 1.5, MappingProxyType(named))


def row(clip: Utterance, number: int = 0):
    heads = {"emotion": {"happy": 0.9, "sad": 0.1}, "gender": {"female": 0.99, "male": 0.01}}
    tokens = SpeechTokens(np.array([[1, 2, 3]]), heads)
    split = "validation" if is_validation(clip) else "train"
    return training_row(clip, facts(), tokens, view=number, split=split, captions=3, seed=0)


def test_plain_labels_are_those_of_wavcaps() -> None:
    """By hand: lower case, a space for each of (,.!?;:|*"), two spaces one; hyphens stay."""
    described = replace(CLIP, captions=('He says: "Stop!", (loudly), high-pitched.', "A man"))
    made = training_row(
        described, facts(), SpeechTokens(np.array([[1]])), split="train", captions=2, seed=0
    )
    plain = with_plain_labels(made)
    assert plain.captions["en"] == ("he says stop loudly high-pitched ", "a man ")
    assert replace(plain, captions=made.captions) == made
    with pytest.raises(RecipeError, match="plain labels cannot begin with plans"):
        TokenRowsSettings(data=(Path("a"),), tokens=Path("t"), labels="plain")


def test_the_papers_clues_are_those_of_the_captions_alone() -> None:
    """Eq. 1: what labels and signal say, and no caption does, is not in P_act."""
    described = replace(CLIP, captions=("A sad voice.", "He is not angry, his pitch is low."))
    tokens = SpeechTokens(np.array([[1, 2, 3]]))
    asked = []

    def parser(text: str, language: str) -> tuple[Clue, ...]:
        asked.append((text, language))
        return find_clues(text, language)

    made = training_row(
        described, facts(), tokens, split="train", captions=3, seed=0, parser=parser
    )
    words = made.act["en"].removeprefix("Feeling ").replace("and ", "").split(", ")
    assert len(words) == 3
    assert words[0] == "sad"
    assert not {"angry", "slow", "quiet"} & set(words)
    assert asked[:2] == [(text, "en") for text in described.captions]
    # Captions written by the grammar are parsed as well, without their plans.
    assert emotion_of(made.act["zh"]) == "sad"
    assert not any("|" in text for text, _ in asked)


def test_a_corpus_without_genders_has_the_ones_that_are_heard():
    def genders(**changes: object) -> list[set[str]]:
        heads = {"gender": {"female": 0.99, "male": 0.01}}
        made = training_row(
            replace(CLIP, gender=None, **changes), facts(female_probability=None),
            SpeechTokens(np.array([[1]]), heads), split="train", captions=3, seed=0,
        )  # fmt: skip
        prompts = (made.act["en"], made.heard["en"])
        clues = [find_clues(prompt, "en") for prompt in prompts]
        return [{one.meaning for one in some if one.trait == "gender"} for some in clues]

    assert genders() == [{"female"}, {"female"}]
    assert genders(captions=("A sad voice.",)) == [set(), {"female"}]  # people left it out


def test_a_row_says_what_is_known():
    made = row(CLIP, 2)
    assert (made.id, made.corpus, made.split) == ("ravdess_1#2", "ravdess", "train")
    assert {language: len(texts) for language, texts in made.captions.items()} == {"en": 3, "zh": 3}
    assert emotion_of(made.act["en"]) == emotion_of(made.act["zh"]) == "sad"
    assert made.transcript == "Dogs are sitting by the door."
    assert "sad" not in made.measured["en"]  # no signal says so
    assert emotion_of(made.heard["en"]) == "sad"  # whatever the heads say: captions follow it
    kept_back = row(replace(CLIP, speaker="ravdess_05"))
    assert emotion_of(kept_back.heard["en"]) == "happy"  # the heads say so, right or wrong
    assert emotion_of(kept_back.act["en"]) == "sad"
    assert row(CLIP, 2).captions == made.captions
    assert row(CLIP, 1).captions != made.captions
    assert row(replace(CLIP, speaker="ravdess_05")).split == "validation"
    assert row(replace(CLIP, emotion=None)) is None  # nothing is known


def test_captions_have_plans_and_say_what_the_p_act_beside_them_says():
    hedges = Counter[str]()
    for number in range(60):
        made = row(CLIP, number)
        for language, texts in made.captions.items():
            meaning = meaning_of_prompt(made.heard[language], language)
            hedges[meaning.hedge] += 1
            for text in texts:
                plan, caption = split_plan(text)
                assert Plan.parse(plan)
                named = (meaning.emotion, *filter(None, [meaning.second]))
                assert emotions_of(find_clues(caption, language)) == named
                assert is_hedged(caption, language) == (meaning.hedge != "sure")
    assert set(hedges) == {"sure", "likely", "unsure", "mixed"}
    assert 0.4 <= hedges["sure"] / hedges.total() <= 0.7
    unheard = training_row(
        CLIP, facts(), SpeechTokens(np.array([[1, 2]])), split="train", captions=3, seed=0
    )
    # Without heads P_act would not say it, so the captions do not hedge either.
    assert not any(is_hedged(split_plan(t)[1], "en") for t in unheard.captions["en"])


def test_human_captions_are_used_as_they_are_and_their_clues_with_them():
    written = ("一位女性用低沉的声音说话，感到悲伤", "她很难过。")
    clip = replace(CLIP, corpus="secap", id="tx_emotion_001_1", captions=written, gender=None)
    made = row(clip)
    assert made.captions["zh"] == ("一位女性用低沉的声音说话，感到悲伤。", "她很难过。")
    assert "低沉" in made.act["zh"]
    assert len(made.captions["en"]) == 3
    assert made.act["en"].startswith("Feeling sad")
    assert made.act["en"].isascii()


@pytest.mark.parametrize(
    ("written", "whole"),
    [("Sad", "Sad."), ("Sad! ", "Sad!"), ("难过", "难过。"), ("难过。", "难过。")],
)
def test_sentences_end(written, whole):
    assert with_full_stop(written) == whole


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TokenRowsSettings, {"data": (Path("m"),), "tokens": Path("t"), "captions": 0}, "at least"),
        (TokenRowsSettings, {"data": (), "tokens": Path("t")}, "at least 1"),
        (TokenizerSettings, {"codebooks": 0}, "codebooks is 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind, values, message):
    with pytest.raises(RecipeError, match=message):
        kind(**values)


def test_rows_of_captions_alone_have_every_emotion_as_often():
    clips = [(replace(CLIP, id=f"c{n}"), facts()) for n in range(16)]
    clips.append((replace(CLIP, emotion=None), facts()))
    made = list(balanced_rows(clips, captions=3, seed=0))
    assert [one.id for one in made] == [f"c{n}#even" for n in range(16)]
    named = []
    for one in made:
        assert one.speech is None
        for language, captions in one.captions.items():
            assert len(captions) == 3
            said = (*captions, one.act[language])
            (emotion,) = {emotion_of(find_clues(text, language)) for text in said}
        named.append(emotion)
    assert sorted(named) == sorted([*EMOTIONS, *EMOTIONS])
    assert list(balanced_rows(clips, captions=3, seed=0)) == made


MINI = find_model("mini")


@pytest.fixture
def of_tokens(tmp_path: Path, example_clips: list[Path]) -> TokenRowsSettings:
    return TokenRowsSettings(
        data=(manifest_of(tmp_path / "train", example_clips[:2], emotion="sad"),),
        validation=(manifest_of(tmp_path / "validation", example_clips[2:3], emotion="happy"),),
        tokens=tmp_path / "tokens",
        tokenizer=TokenizerSettings(name="builtin", weights=MINI),
    )


def manifest_of(path: Path, clips: list[Path], **told: object) -> Path:
    rows = [{"id": clip.stem, "file": str(clip), **told} for clip in clips]
    return lines(path.with_suffix(".jsonl"), *map(json.dumps, rows))


def test_rows_hold_the_tokenizers_tokens(of_tokens, tmp_path, example_clips):
    out = tmp_path / "run"
    assert make_token_rows(of_tokens, out, resume=False) == {"rows": 3, "unsaid": 0}
    rows = list(read_rows(out / "rows.jsonl"))
    tokenizer = open_tokenizer("builtin", MINI)
    assert read_source(out / "rows.jsonl").fingerprint == tokenizer.fingerprint
    assert [made.split for made in rows] == ["train", "train", "validation"]
    assert [(made.id, made.speech.tolist()) for made in rows] == [
        (f"{clip.stem}#0", tokenizer.encode(load(clip)).codes.tolist())
        for clip in example_clips[:3]
    ]
    # Once more: what is in the cache is not encoded again, and the file is left as it is.
    assert make_token_rows(of_tokens, out, resume=True) == {"rows": 3, "unsaid": 0}
    make_token_rows(of_tokens, tmp_path / "other", resume=False)
    files = [(folder / "rows.jsonl").read_bytes() for folder in (out, tmp_path / "other")]
    assert files[0] == files[1]


def test_rows_that_were_begun_come_with_even_ones(of_tokens, tmp_path, monkeypatch):
    """Killed at any moment, a folder that holds rows.jsonl holds the even ones too."""
    even = replace(of_tokens, even=True)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rows, "balanced_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            make_token_rows(even, tmp_path, resume=False)
    assert make_token_rows(even, tmp_path, resume=True) == {"rows": 3, "unsaid": 0}
    assert len(list(read_rows(tmp_path / "even.jsonl"))) == 2
    with pytest.raises(RecipeError, match="seed is -1, must be 0 or more"):
        replace(of_tokens, seed=-1)


def test_clips_are_on_one_side_by_manifest_or_by_fixed_speakers(of_tokens, tmp_path, example_clips):
    with pytest.raises(DataError, match="was listed before, for train"):
        split_clips(replace(of_tokens, validation=of_tokens.data))
    people = tuple(
        manifest_of(tmp_path / who, [clip], speaker=who)
        for who, clip in zip(("ravdess_05", "anna"), example_clips, strict=False)
    )
    found = split_clips(replace(of_tokens, data=people, validation=()))
    assert [split for _, split in found] == ["validation", "train"]
    found = split_clips(replace(of_tokens, data=people))
    assert [split for _, split in found] == ["train", "train", "validation"]


def test_what_cannot_be_learnt_from_is_one_line(of_tokens, tmp_path, example_clips):
    bare = manifest_of(tmp_path / "bare", example_clips[:1])
    with pytest.raises(DataError, match="no clip has a caption or an emotion"):
        make_token_rows(replace(of_tokens, data=(bare,), validation=()), tmp_path, resume=False)
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_dry_run_says_what_to_fetch(of_tokens, tmp_path):
    lacking = replace(of_tokens, tokenizer=TokenizerSettings(weights=tmp_path / "none"))
    ready, asked = (plan_token_rows(one, tmp_path)["loads"] for one in (of_tokens, lacking))
    assert all(one["present"] for one in ready)
    assert [one["present"] for one in asked] == [True, True, False]
    assert "hf download fnlp/SpeechTokenizer" in asked[-1]["cure"]
    assert str(tmp_path / "none") in asked[-1]["cure"]
