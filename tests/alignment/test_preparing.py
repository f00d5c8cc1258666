"""Training rows: facts that move with the voice, views, the codes that captioning gives; and rows
of any speech tokenizer's tokens: the built-in one's here, the paper's in test_whole_way."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aligncap.alignment import rows as making
from aligncap.alignment.examples import read_rows, read_source
from aligncap.alignment.rows import (
    RowsSettings,
    TokenizerSettings,
    TokenRowsSettings,
    View,
    make_token_rows,
    moved_facts,
    plan_row_making,
    plan_token_rows,
    rows_of,
    split_clips,
    tokens_of,
    training_row,
    view_of,
    with_full_stop,
)
from aligncap.audio import load
from aligncap.captioner.checkpoint import find_model
from aligncap.clues import emotion_of, find_clues
from aligncap.data.manifest import Utterance
from aligncap.data.splits import is_validation
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.prosody.measurement import MELS
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.builtin import Features, padded
from aligncap.tokenizers.encoder_training import Varied
from aligncap.values import EMOTIONS, Fact, Facts, SpeechTokens
from speech_tokenizers.test_encoder import clip_of, encoder
from support.corpora import lines

KNOWN = {"data": (Path("m.jsonl"),), "encoder": Path("e"), "features": Path("f"), "captions": 3}
SETTINGS = RowsSettings(**KNOWN)
VARIED = {"augmentation": SETTINGS.augmentation, "seed": SETTINGS.seed}
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
PER_SECOND = {name for name in VALUES if name.endswith("_per_s")}


def facts(**changes: float | None) -> Facts:
    named = {
        name: Fact(name, None, "unit", 0.0, "cannot tell")
        if value is None
        else Fact(name, value, "unit", 0.9)
        for name, value in {**VALUES, **changes}.items()
    }
    return Facts(2.0, 1.5, MappingProxyType(named))


def features(frames: int = 60) -> Features:
    chance = np.random.default_rng(frames)
    mel = chance.normal(-4, 1, (frames, MELS)).astype(np.float32)
    return Features(mel, np.full(frames, 120, np.float32), np.full(frames, 0.8, np.float32))


def moved(given: Facts, *, voice: float = 1.0, pace: float = 1.0, level: float = 0.0) -> Facts:
    return moved_facts(given, Varied(features(), voice, pace, level))


@pytest.mark.parametrize(
    ("how", "values"),
    [
        # A semitone up.
        ({"voice": 2 ** (1 / 12)}, {"pitch_offset_st": 0.0, "pitch_median_hz": 127.136}),
        # Faster speech has more of everything a second.
        ({"pace": 1.25}, {name: 1.25 * VALUES[name] for name in PER_SECOND}),
        # Twice the power is three decibels.
        ({"level": math.log(2)}, {"loudness_db": -24.0 + 3.0103}),
    ],
)
def test_facts_move_with_the_voice_and_no_others_do(how, values):
    after = moved(facts(), **how)
    changed = {fact.name: after.value(fact.name) for fact in facts() if after[fact.name] != fact}
    assert changed == pytest.approx(values, abs=1e-3)
    length = 2.0 / how.get("pace", 1.0)
    assert (after.duration_s, after.speech_s) == pytest.approx((length, 0.75 * length))


def test_what_could_not_be_told_still_cannot():
    given = facts(pitch_median_hz=None, pace_syllables_per_s=None)
    after = moved(given, voice=1.05, pace=1.2)
    assert after["pitch_median_hz"] == given["pitch_median_hz"]
    assert after["pace_syllables_per_s"] == given["pace_syllables_per_s"]


@pytest.mark.parametrize(("ratio", "known"), [(1.06, True), (1.09, False), (0.9, False)])
def test_a_voice_moved_far_may_be_anybodys(ratio, known):
    fact = moved(facts(), voice=ratio)["female_probability"]
    assert (fact.value is not None) is known


def test_the_first_view_is_the_clip_and_further_ones_differ_but_always_alike():
    first = view_of(CLIP, features(), facts(), number=0, **VARIED)
    assert (first.utterance, first.facts) == (CLIP, facts())
    np.testing.assert_array_equal(first.features.mel, features().mel)
    views = [view_of(CLIP, features(), facts(), number=n, **VARIED) for n in (1, 2, 1)]
    np.testing.assert_array_equal(views[0].features.mel, views[2].features.mel)
    assert views[0].facts == views[2].facts
    assert views[0].facts != views[1].facts
    for view in views:
        ratio = view.facts.value("pitch_median_hz") / VALUES["pitch_median_hz"]
        octaves = view.features.pitch_hz[0] / 120
        assert ratio == pytest.approx(float(octaves), rel=1e-5)
        assert (view.utterance.gender is None) == (abs(math.log(ratio)) > 0.07)
    other = view_of(replace(CLIP, id="ravdess_2"), features(), facts(), number=1, **VARIED)
    assert views[0].facts != other.facts


def test_a_clip_without_a_label_goes_by_its_caption():
    clip = replace(CLIP, emotion=None, captions=("A voice full of joy.",))
    view = view_of(clip, features(), facts(), number=0, **VARIED)
    assert view.utterance.emotion == "happy"


def row(clip: Utterance, number: int = 0):
    heads = {"emotion": {"happy": 0.9, "sad": 0.1}, "gender": {"female": 0.99, "male": 0.01}}
    tokens = SpeechTokens(np.array([[1, 2, 3]]), heads)
    split = "validation" if is_validation(clip) else "train"
    return training_row(clip, facts(), tokens, view=number, split=split, captions=3, seed=0)


def test_a_row_says_what_is_known():
    made = row(CLIP, 2)
    assert (made.id, made.corpus, made.split) == ("ravdess_1#2", "ravdess", "train")
    assert {language: len(texts) for language, texts in made.captions.items()} == {"en": 3, "zh": 3}
    assert made.act["en"].startswith("Feeling sad")
    assert made.act["zh"].startswith("感到")
    assert made.transcript == "Dogs are sitting by the door."
    assert "sad" not in made.measured["en"]  # no signal says so
    assert made.heard["en"].startswith("Feeling happy")  # the heads say so, right or wrong
    assert row(CLIP, 2).captions == made.captions
    assert row(CLIP, 1).captions != made.captions
    assert row(replace(CLIP, speaker="ravdess_05")).split == "validation"
    assert row(replace(CLIP, emotion=None)) is None  # nothing is known


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


def test_codes_are_those_of_each_clip_alone_whatever_is_read_with_it():
    """The way of the exported encoder: filled up to whole tokens, and nothing beside it."""
    model = encoder()
    inputs = [clip_of(frames, frames) for frames in (40, 97, 33, 97, 5, 100, 240)]
    found = tokens_of(inputs, model)
    for one, tokens in zip(inputs, found, strict=True):
        alone = padded(one)
        with torch.no_grad():
            expected = model(
                torch.from_numpy(alone.views)[None],
                torch.from_numpy(alone.prosody)[None],
                torch.from_numpy(alone.mask)[None],
            )
        assert tokens.codes.tolist() == expected.codes[:, : alone.tokens].tolist()
        emotion = dict(zip(EMOTIONS, expected.emotion.softmax(1)[0].tolist(), strict=True))
        assert tokens.readout["emotion"] == pytest.approx(emotion, abs=1e-6)
        female = tokens.readout["gender"]["female"]
        assert female == pytest.approx(float(expected.gender.sigmoid()), abs=1e-6)


def test_rows_keep_the_order_of_their_views_across_batches():
    views = [View(replace(CLIP, id=f"c{n}"), 0, features(20 + n % 7), facts()) for n in range(300)]
    rows = list(rows_of(iter(views), encoder(), SETTINGS))
    assert [made.id for made in rows] == [f"c{n}#0" for n in range(300)]
    lengths = [max(2, -(-(20 + n % 7) // 8)) for n in range(300)]
    assert [made.speech.shape for made in rows] == [(1, length) for length in lengths]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (RowsSettings, {**KNOWN, "views": 0}, "at least 1"),
        (RowsSettings, {**KNOWN, "captions": 0}, "at least 1"),
        (RowsSettings, {**KNOWN, "data": ()}, "at least 1"),
        (TokenRowsSettings, {"data": (), "tokens": Path("t")}, "at least 1"),
        (TokenizerSettings, {"codebooks": 0}, "codebooks is 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind, values, message):
    with pytest.raises(RecipeError, match=message):
        kind(**values)


LINES = [
    {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "ravdess", "speaker": who, "emotion": "sad"}
    for n, who in enumerate(["ravdess_01", "ravdess_05", "ravdess_02"])
]


def test_a_run_gives_one_view_to_validation_and_several_to_training(tmp_path, monkeypatch):
    manifest = lines(tmp_path / "manifest.jsonl", *map(json.dumps, LINES))

    class Tokenizer:
        name, fingerprint, frame_rate_hz, codebook_size = "builtin", "f" * 16, 12.5, 32
        codebooks = 1

    monkeypatch.setattr(making.encoder_training, "measure_file", lambda path: features())
    monkeypatch.setattr(making, "measure_all", lambda cache, paths: [facts() for _ in paths])
    monkeypatch.setattr(making.builtin, "open_builtin", lambda path: Tokenizer())
    monkeypatch.setattr(making, "load_encoder", lambda path: encoder())
    settings = replace(SETTINGS, data=(manifest,), features=tmp_path / "features", views=3)
    made = making.make_rows(settings, tmp_path / "one", resume=False)
    assert made == {"rows": 7, "plain": 2, "even": 2}
    making.make_rows(settings, tmp_path / "other", resume=False)
    rows = list(read_rows(tmp_path / "one" / "rows.jsonl"))
    assert [r.id for r in rows] == ["c0#0", "c0#1", "c0#2", "c1#0", "c2#0", "c2#1", "c2#2"]
    assert [r.id for r in rows if r.split == "validation"] == ["c1#0"]
    plain = list(read_rows(tmp_path / "one" / "plain.jsonl"))
    assert [r.id for r in plain] == ["c0#plain", "c2#plain"]
    assert all(r.speech is None and "The speaker sounds sad." in r.captions["en"] for r in plain)
    even = list(read_rows(tmp_path / "one" / "even.jsonl"))
    assert [r.id for r in even] == ["c0#even", "c2#even"]
    for row, emotion in zip(even, EMOTIONS, strict=False):
        for language, captions in row.captions.items():
            assert len(captions) == 3
            said = (*captions, row.act[language])
            assert {emotion_of(find_clues(one, language)) for one in said} == {emotion}
    files = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]
    made = making.make_rows(settings, tmp_path / "one", resume=True)
    assert made == {"rows": 0, "plain": 0, "even": 0}


def test_a_dry_run_counts_the_rows_that_there_may_be(tmp_path):
    told = (json.dumps(line | {"duration": 2.0}) for line in LINES)
    manifest = lines(tmp_path / "m.jsonl", *told)
    settings = replace(SETTINGS, data=(manifest, manifest), encoder=tmp_path, views=3)
    with pytest.raises(MissingModelError, match="holds no speech encoder"):
        plan_row_making(settings, tmp_path)
    save = encoder()
    (tmp_path / "config.json").write_text(json.dumps(asdict(save.config)))
    save_file(save.state_dict(), tmp_path / "model.safetensors")
    found = plan_row_making(settings, tmp_path)
    json.dumps(found)
    assert [one["present"] for one in found["loads"]] == [True, True, True]
    assert found["parameters"]["trained"] == 0 < found["parameters"]["total"]
    # Twelve seconds of a hundred frames, 66 numbers of two bytes each.
    assert found["disk_bytes"]["features"] == 12 * 100 * 66 * 2
    assert "at most 14 rows" in found["notes"][0]
    absent = plan_row_making(
        replace(settings, data=(tmp_path / "no.jsonl",), encoder=tmp_path / "no"), None
    )
    assert [one["present"] for one in absent["loads"]] == [False, False]
    assert absent["disk_bytes"]["features"] is absent["parameters"] is None


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
    assert make_token_rows(of_tokens, out, resume=True) == {"rows": 0, "unsaid": 0}
    make_token_rows(of_tokens, tmp_path / "other", resume=False)
    files = [(folder / "rows.jsonl").read_bytes() for folder in (out, tmp_path / "other")]
    assert files[0] == files[1]


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
