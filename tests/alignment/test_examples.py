"""Training rows, what student, teacher and warm-up read of them, which of them a batch holds."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aligncap.alignment.examples import (
    BatchSettings,
    DataSettings,
    Prompter,
    Sample,
    SpeechSource,
    StudentSettings,
    TrainingRow,
    read_rows,
    read_source,
    write_rows,
)
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.kd import LossSettings, TeacherSettings, WarmupSettings
from aligncap.alignment.sampling import (
    BucketBatchSampler,
    sampling_probabilities,
    stated_emotion,
    systematic_resampling,
    validation_samples,
)
from aligncap.captioner.model import AdapterSettings
from aligncap.captioner.prompts import PromptBuilder
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.training.settings import FitSettings
from support.captioner import tiny_vocabulary
from support.rows import SOURCE, tiny_rows

HEADER = (
    '{"training_rows": 1, "tokenizer": {"name": "fake", "fingerprint": "abc", '
    '"frame_rate_hz": 12.5, "codebooks": 1, "codebook_size": 8}}'
)
HERE = (Path("rows.jsonl"),)


def write(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return path


def line(**changes: object) -> str:
    return json.dumps({"id": "a", "corpus": "c", "captions": {"en": ["Calm."]}, **changes})


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = tiny_rows(6)
    # Two codebooks, and captions alone.
    rows[0] = replace(rows[0], speech=np.array([[1, 2, 3], [4, 5, 6]]))
    rows[1] = replace(rows[1], speech=None, transcript="", weight=0.5)
    assert write_rows(tmp_path / "rows.jsonl", SOURCE, rows) == 6
    assert read_source(tmp_path / "rows.jsonl") == SOURCE
    for found, expected in zip(read_rows(tmp_path / "rows.jsonl"), rows, strict=True):
        assert replace(found, speech=None) == replace(expected, speech=None)
        np.testing.assert_array_equal(found.speech, expected.speech)


def test_rows_need_little_and_are_read_as_a_stream(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, line(speech=[3, 1]), "no json"))
    found = next(rows)
    assert found.speech.tolist() == [[3, 1]]
    captions = {"en": ("Calm.",)}
    expected = TrainingRow(id="a", corpus="c", split="train", captions=captions, weight=1.0, act={})
    assert replace(found, speech=None) == expected
    with pytest.raises(DataError, match=r"rows\.jsonl:3"):
        next(rows)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (line(caption={}), "'caption'.*did you mean 'captions'"),
        (line(captions={}), "a: captions are by language"),
        (line(captions={"en": [" "]}), "none empty"),
        (line(captions={"de": ["Ruhig."]}), "'de'"),
        (line(speech=[1.5]), "speech must be whole numbers"),
        (line(speech=[]), "speech"),
        (line(speech=[-1]), "speech is codes of 0 or more"),
        (line(speech=[[1, 2], [3]]), "inhomogeneous|speech must be whole numbers"),
        (line(split="test"), "split"),
        (line(weight=-1), "weight is -1"),
        ('{"id": "a", "captions": {"en": ["Calm."]}}', "lacks 'corpus'"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*({message})"):
        list(read_rows(write(tmp_path, written)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a"}\n', r"other\.jsonl:1: lacks 'training_rows'"),
        ("", "is empty"),
        (None, "make it first: training rows by a recipe"),
    ],
)
def test_a_file_that_is_no_file_of_rows_is_refused(tmp_path: Path, text, message) -> None:
    if text is not None:
        (tmp_path / "other.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_source(tmp_path / "other.jsonl")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = (row if number < 2 else 1 / 0 for number, row in enumerate(tiny_rows(3)))
    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "rows.jsonl", SOURCE, rows)
    assert not (tmp_path / "rows.jsonl").exists()


def test_values_are_checked_at_birth() -> None:
    with pytest.raises(UnknownNameError, match="'train'"):
        replace(tiny_rows(1)[0], split="trian")
    with pytest.raises(DataError, match="codebooks"):
        SpeechSource(name="x", fingerprint="y", frame_rate_hz=1.0, codebooks=0, codebook_size=4)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DataSettings, {"rows": ()}, r"rows is \(\), must be a list of at least 1"),
        (DataSettings, {"rows": HERE, "balance": 1.5}, r"balance is 1\.5"),
        (DataSettings, {"rows": HERE, "rarity": -0.5}, r"rarity is -0\.5"),
        (DataSettings, {"rows": HERE, "languages": {"en": 0.0}}, "no language"),
        (DataSettings, {"rows": HERE, "languages": {"fr": 1.0}}, "'fr'"),
        (BatchSettings, {"captions": 0}, "captions is 0"),
        (ModelSettings, {"start": Path("a"), "base": "b"}, "not both"),
        (ModelSettings, {"lora": AdapterSettings()}, "give start or base"),
        (ModelSettings, {"start": Path("a"), "dtype": "bfloat16"}, "too coarse"),
        (ModelSettings, {"dtype": "float23"}, "'float32'"),
        (StudentSettings, {"act_mode": "measure"}, "'measured'"),
        (StudentSettings, {"speech_dropout": 1.0}, r"speech_dropout is 1\.0"),
        (TeacherSettings, {"prompt": "act+sen"}, r"'act\+sem'"),
        (TeacherSettings, {"temperature": 0.0}, r"temperature is 0\.0"),
        (LossSettings, {"kl_weight": 0.0}, "both 0"),
        (LossSettings, {"ce_weight": -1.0}, "must be 0 or more"),
    ],
)
def test_a_setting_out_of_range_is_named(kind: type, values: dict, message: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        kind(**values)


@pytest.mark.parametrize("prompts", [{"actt": 1.0}, {"act": 0.0}, {"act": -1.0}, {}])
def test_a_warm_up_reads_something(prompts: dict[str, float]) -> None:
    training = FitSettings(precision="float32", steps=1, learning_rate=1.0)
    with pytest.raises((RecipeError, UnknownNameError), match="prompt"):
        WarmupSettings(data=DataSettings(rows=HERE), training=training, prompts=prompts)


# What is read of a clip: spans looked up in the ids themselves.

VOCABULARY = tiny_vocabulary()
ROWS = tiny_rows(12)
EN, ZH = Sample(0, "en", (0, 1), None), Sample(0, "zh", (0,), None)
CODES = ROWS[0].speech[0].tolist()


def prompter(rows: Sequence[TrainingRow]) -> Prompter:
    return Prompter(PromptBuilder(VOCABULARY), rows)


PROMPTER = prompter(ROWS)


def read(ids: tuple[int, ...]) -> str:
    return VOCABULARY.decode(ids)


def codes(ids: tuple[int, ...]) -> list[int]:
    return [i - VOCABULARY.speech_base for i in ids if i >= VOCABULARY.speech_base]


def student_prompt(sample: Sample = EN, **settings: object) -> tuple[int, ...]:
    return PROMPTER.student_row(sample, StudentSettings(**settings)).prompt_ids


def test_the_student_hears_the_clip_and_is_to_say_its_captions() -> None:
    row = PROMPTER.student_row(EN, StudentSettings())
    assert codes(row.prompt_ids) == CODES
    assert "Feeling" not in read(row.prompt_ids)
    assert [read(said) for said in row.responses] == list(ROWS[0].captions["en"])
    assert all(said[-1] == VOCABULARY.eos_id for said in row.responses)
    # Each language has its instruction.
    assert "Describe" in read(row.prompt_ids)
    assert "描述" in read(student_prompt(ZH))


def test_measured_clues_are_given_but_for_the_share_left_out() -> None:
    assert ROWS[0].measured["en"] in read(student_prompt(act_mode="measured"))
    given = [
        "Feeling"
        in read(student_prompt(replace(EN, seed=n), act_mode="measured", act_dropout=0.25))
        for n in range(400)
    ]
    assert np.mean(given) == pytest.approx(0.75, abs=0.06)
    # Validation leaves nothing out.
    assert "Feeling" in read(student_prompt(act_mode="measured", act_dropout=0.999))


def test_speech_frames_are_left_out_in_order_and_never_all() -> None:
    lengths = set()
    for seed in range(50):
        kept = codes(student_prompt(replace(EN, seed=seed), speech_dropout=0.5))
        rest = iter(CODES)
        assert all(code in rest for code in kept)  # a subsequence
        lengths.add(len(kept))
    assert len(lengths) > 2
    for seed in range(20):
        assert codes(student_prompt(replace(EN, seed=seed), speech_dropout=0.99))
    assert codes(student_prompt(speech_dropout=0.5)) == CODES


def test_the_teacher_reads_clues_and_for_p_sem_the_caption_itself() -> None:
    act = PROMPTER.teacher_examples(EN, "act")
    assert len({example.prompt_ids for example in act}) == 1
    assert ROWS[0].act["en"] in read(act[0].prompt_ids)
    assert not any(codes(example.prompt_ids) for example in act)
    sem = PROMPTER.teacher_examples(EN, "act+sem")
    for example, caption in zip(sem, ROWS[0].captions["en"], strict=True):
        assert caption in read(example.prompt_ids)
        assert read(example.response_ids) == caption
    # Table 2's row without P_act.
    for example, both in zip(PROMPTER.teacher_examples(EN, "sem"), sem, strict=True):
        assert read(example.prompt_ids) == read(both.prompt_ids).replace(
            f"{ROWS[0].act['en']}\n", ""
        )
    (spoken, _) = PROMPTER.teacher_examples(EN, "act+transcript")
    assert ROWS[0].transcript in read(spoken.prompt_ids)
    # Student and teacher are asked for the same tokens.
    student = PROMPTER.student_row(EN, StudentSettings())
    assert student.responses == tuple(example.response_ids for example in sem)


def test_views_of_one_clip_ask_the_teacher_once() -> None:
    views = prompter([ROWS[0], replace(ROWS[0], id="clip0#1", speech=ROWS[1].speech), ROWS[3]])
    # Row 3 has the feeling, clues and captions of row 0, but another transcript.
    assert len(views.all_examples("act")) == 3
    assert len(views.all_examples("act+transcript")) == 6


def test_warm_up_mixes_prompts_and_sometimes_gives_none() -> None:
    def kinds(prompts: dict[str, float], act_dropout: float) -> Counter[str]:
        found: Counter[str] = Counter()
        for seed in range(300):
            sample = replace(EN, seed=seed)
            rows = PROMPTER.warmup_rows(sample, prompts=prompts, act_dropout=act_dropout)
            said = [read(response) for row in rows for response in row.responses]
            assert set(said) == set(ROWS[0].captions["en"])
            text = read(rows[0].prompt_ids)
            kind = "act" if "Feeling" in text else "nothing"
            found["act+sem" if said[0] in text else kind] += 1
        return found

    assert kinds({"act": 1.0}, 0.5)["nothing"] / 300 == pytest.approx(0.5, abs=0.1)
    mixed = kinds({"act": 1.0, "act+sem": 2.0}, 0.0)
    assert mixed["act+sem"] / 300 == pytest.approx(2 / 3, abs=0.1)
    assert "nothing" not in mixed
    # What is validated on is the first that is trained at all.
    prompts = {"act": 0.0, "act+sem": 1.0}
    sample = Sample(0, "en", (0,), None)
    (row,) = PROMPTER.warmup_rows(sample, prompts=prompts, act_dropout=0.0)
    assert ROWS[0].captions["en"][0] in read(row.prompt_ids)


def test_a_row_without_speech_is_named_and_one_without_transcript_read_by_its_clues() -> None:
    bare = prompter([replace(ROWS[0], speech=None, transcript="")])
    with pytest.raises(DataError, match="clip0: has no speech"):
        bare.student_row(EN, StudentSettings())
    clues = bare.teacher_examples(EN, "act")
    assert bare.teacher_examples(EN, "act+transcript") == clues
    (row,) = bare.warmup_rows(EN, prompts={"act+transcript": 1.0}, act_dropout=0.0)
    assert "Feeling" in read(row.prompt_ids)


# Which rows a batch holds: a pure function of its number, by weight, of about one length.


def length_of(rows: list[TrainingRow], draw: Sample) -> int:
    return int(rows[draw.row].speech.shape[1])


def plan(
    rows: list[TrainingRow], *, seed: int = 0, batch: BatchSettings | None = None, **data: object
) -> BucketBatchSampler:
    return BucketBatchSampler(
        rows,
        data=DataSettings(rows=HERE, **data),
        batch=batch or BatchSettings(rows=4, captions=2),
        seed=seed,
        length_of=lambda d: length_of(rows, d),
    )


def draws(sampler: BucketBatchSampler, count: int) -> list[Sample]:
    """All of the first batches."""
    return [draw for number in range(count) for draw in sampler.samples_at(number)]


def training_rows(count: int) -> list[TrainingRow]:
    return [replace(row, split="train") for row in tiny_rows(count)]


def test_a_batch_depends_on_its_number_and_seed_alone() -> None:
    rows = tiny_rows(50)
    forward = [plan(rows).samples_at(number) for number in range(40)]
    one = plan(rows)
    assert forward == [one.samples_at(number) for number in reversed(range(40))][::-1]
    assert forward != [plan(rows, seed=1).samples_at(number) for number in range(40)]


def test_every_training_row_is_drawn_once_an_epoch_and_no_validation_row() -> None:
    rows = tiny_rows(80)
    training = {place for place, row in enumerate(rows) if row.split == "train"}
    one = plan(rows)
    for epoch in range(2):
        batches = [one.samples_at(epoch * 14 + number) for number in range(14)]
        assert {len(batch) for batch in batches} == {4}
        assert Counter(d.row for batch in batches for d in batch) == Counter(training)


def test_systematic_draws_keep_to_their_shares_within_one() -> None:
    chance = np.random.default_rng(0)
    shares = chance.dirichlet(np.full(30, 0.5))
    for count in (7, 100, 1000):
        found = np.bincount(systematic_resampling(shares, count, chance), minlength=30)
        assert found.sum() == count
        assert np.abs(found - count * shares).max() < 1 + 1e-9


def test_weights_say_how_often_and_nothing_to_draw_is_said() -> None:
    rows = training_rows(40)
    rows[:10] = [replace(row, weight=3.0) for row in rows[:10]]
    heavy = [d.row < 10 for d in draws(plan(rows), 100)]
    assert np.mean(heavy) == pytest.approx(30 / 60, abs=0.01)
    with pytest.raises(DataError, match="no training row"):
        plan([replace(row, weight=0.0) for row in rows])


def felt(number: int, emotion: str) -> TrainingRow:
    captions, act = {"en": (f"She sounds {emotion}.",)}, {"en": f"Feeling {emotion} and loud"}
    return TrainingRow(id=f"c{number}", corpus="one", captions=captions, act=act)


@pytest.mark.parametrize(("rarity", "expected"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_rarity_evens_emotions_out(rarity: float, expected: float) -> None:
    """Nine angry rows and a bored one: by the root of their numbers three to one."""
    rows = [felt(n, "angry") for n in range(9)] + [felt(9, "bored")]
    shares = sampling_probabilities(rows, DataSettings(rows=HERE, rarity=rarity))
    assert shares == pytest.approx([(1 - expected) / 9] * 9 + [expected])


def test_the_emotion_of_a_row_is_that_of_its_clues_before_that_of_its_captions() -> None:
    row = felt(0, "angry")
    told = [row, *(replace(row, act={"en": one}) for one in ("Feeling loud", "Feeling sad"))]
    told += [replace(row, act={}), replace(row, act={}, captions={"en": ("She speaks.",)})]
    assert [stated_emotion(one) for one in told] == ["angry", "angry", "sad", "angry", None]


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 0.8), (1.0, 0.5), (0.5, 2 / 3)])
def test_balance_evens_corpora_out(balance: float, expected: float) -> None:
    # 4 : 1, its square root 2 : 1, and 1 : 1.
    rows = training_rows(50)
    rows = [replace(r, corpus="big" if place % 5 else "small") for place, r in enumerate(rows)]
    big = [rows[d.row].corpus == "big" for d in draws(plan(rows, balance=balance), 120)]
    assert np.mean(big) == pytest.approx(expected, abs=0.02)


def test_languages_are_mixed_as_asked_and_captions_are_different() -> None:
    found = draws(plan(tiny_rows(60), languages={"en": 3.0, "zh": 1.0}), 200)
    assert np.mean([d.language == "en" for d in found]) == pytest.approx(0.75, abs=0.05)
    # Two captions where there are two, in both orders; one where there is one.
    kinds = {(d.language, d.captions) for d in found}
    assert kinds == {("en", (0, 1)), ("en", (1, 0)), ("zh", (0,))}


def test_buckets_pad_less_than_chance() -> None:
    rows = training_rows(400)
    waste = []
    for bucket in (1, 50):
        one = plan(rows, batch=BatchSettings(rows=8, captions=1, bucket=bucket))
        lengths = [[length_of(rows, d) for d in one.samples_at(number)] for number in range(50)]
        waste.append(1 - np.sum(lengths) / (8 * np.max(lengths, axis=1).sum()))
    assert waste[0] > 0.2
    assert waste[1] < 0.03


def test_validation_draws_are_fixed_spread_and_leave_nothing_to_chance() -> None:
    rows = tiny_rows(100)
    found = validation_samples(rows, limit=10, data=DataSettings(rows=HERE), captions=1)
    assert len(found) == 20  # ten rows in two languages
    assert {(rows[d.row].split, d.seed, d.captions) for d in found} == {("validation", None, (0,))}
    assert max(d.row for d in found) - min(d.row for d in found) > 80
