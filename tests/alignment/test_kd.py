"""Warm-up, KD and CE from recipe to model folder, on a made-up corpus."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aligncap.alignment import kd
from aligncap.alignment.examples import (
    BatchSettings,
    DataSettings,
    StudentSettings,
    read_rows,
    write_rows,
)
from aligncap.alignment.init_model import ModelSettings, SizeSettings
from aligncap.alignment.kd import (
    CaptionObjective,
    KdSettings,
    TeacherSettings,
    WarmupSettings,
)
from aligncap.alignment.losses import caption_cross_entropy, kl_to_teacher
from aligncap.alignment.trainer import (
    StageTrainer,
    TaskBatch,
    ValidationSettings,
    read_training_rows,
)
from aligncap.captioner.checkpoint import (
    CaptionLimits,
    ModelNotes,
    load_torch,
    read_meta,
    write_meta,
)
from aligncap.captioner.prompts import SharedPromptBatch
from aligncap.captioner.vocabulary import Vocabulary, train_text_tokenizer
from aligncap.errors import DataError, RecipeError
from aligncap.training import loop
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from support.recipe_runs import assert_goes_on_alike, run
from support.rows import SOURCE, tiny_rows, trace, write_tiny

NEW = SizeSettings(hidden=32, layers=2, heads=2, text_vocabulary=330)
FIT = FitSettings(
    precision="float32",
    steps=160,
    learning_rate=1e-2,
    warmup_steps=10,
    save_every=80,
    log_every=20,
    ema_decay=0.95,
)
ONE_STEP = replace(FIT, steps=1)
COMMON = {
    "training": FIT,
    "batch": BatchSettings(rows=8, captions=2),
    "validation": ValidationSettings(every=80, rows=30),
}

Settings = Callable[..., KdSettings]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("rows"), count=90)


def warm_up(rows: Path, output: Path, **changes: object) -> dict[str, object]:
    given = {**COMMON, "data": DataSettings(rows=(rows,)), **changes}
    return run(kd.train_warmup, WarmupSettings(**given), output)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Path:
    """The model folder of a warm-up that has learnt what clues are for."""
    summary = warm_up(rows, tmp_path_factory.mktemp("warmup"), model=ModelSettings(new=NEW))
    # Which of two English wordings is a coin toss; the rest follows from the clues.
    assert summary["validation_ce"] < 0.4
    return Path(str(summary["model"]))


@pytest.fixture(scope="module")
def kd_of(rows: Path, warm: Path) -> Settings:
    """Makes settings of a distillation that starts from the warm-up."""

    def made(*files: Path, **changes: object) -> KdSettings:
        start, data = ModelSettings(start=warm), DataSettings(rows=files or (rows,))
        return KdSettings(**{**COMMON, "data": data, "model": start, **changes})

    return made


def run_kd(settings: KdSettings, output: Path) -> dict[str, float]:
    return run(kd.train_kd, settings, output)


def trainer_of(kind: str, settings: object, folder: Path) -> StageTrainer:
    data = read_training_rows(settings.data.rows, needs_speech=True)
    return StageTrainer(settings, folder / kind, kind=kind, data=data)


def validations(output: Path, name: str) -> list[float]:
    return [line[name] for line in read_log(output) if name in line]


def test_distillation_brings_the_student_to_the_teacher(tmp_path: Path, kd_of: Settings) -> None:
    """On clips never heard, the codes alone must come to say what the clues say."""
    summary = run_kd(kd_of(), tmp_path)
    # With the same code for every frame it ends at 0.04: the best of those who cannot hear.
    assert summary["validation_kl"] < 0.01
    assert summary["validation_ce"] < 0.4
    meta = read_meta(tmp_path / "model")
    assert (meta.languages, meta.act_mode, meta.weights) == (("en", "zh"), "none", "full")
    assert (meta.tokenizer.fingerprint, meta.provenance["kind"]) == (SOURCE.fingerprint, "kd")
    # What is saved is the average, as validated.
    saved = load_torch(tmp_path / "model")
    average = load_file(tmp_path / "checkpoint-160" / "average.safetensors")
    torch.testing.assert_close(dict(saved.named_parameters()), average)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_first_loss_is_that_of_the_equations(tmp_path, kd_of, warm, temperature: float) -> None:
    """By another road: one batch's losses from plain forwards, prompt by prompt."""
    settings = kd_of(
        training=replace(FIT, steps=1, log_every=1, ema_decay=None),
        teacher=TeacherSettings(top_k=10**6, temperature=temperature),
        loss=kd.LossSettings(kl_weight=0.75, ce_weight=0.25),
    )
    run_kd(settings, tmp_path / "run")
    logged = trace(tmp_path / "run")[0]
    trainer = trainer_of("kd", settings, tmp_path)
    task = kd.kd_task(settings, trainer, tmp_path / "cache")
    model = load_torch(warm)

    def logits(prompt: Iterable[int], said: tuple[int, ...]) -> torch.Tensor:
        ids = torch.tensor([[*prompt, *said]])
        with torch.no_grad():
            whole = model.causal_lm(input_ids=ids).logits[0]
        return whole[-len(said) - 1 : -1, : model.vocabulary.text_vocab_size]

    student, teacher, targets = [], [], []
    for sample in trainer.sampler(task.length_of).samples_at(0):
        heard = trainer.prompter.student_row(sample, settings.student)
        for example in trainer.prompter.teacher_examples(sample, "act"):
            student.append(logits(heard.prompt_ids, example.response_ids))
            teacher.append(logits(example.prompt_ids, example.response_ids))
            targets += example.response_ids
    warmer = [torch.cat(one) / temperature for one in (student, teacher)]
    kl = kl_to_teacher(*warmer).item()
    cross = caption_cross_entropy(torch.cat(student), torch.tensor(targets)).item()
    # float16 in the cache.
    assert logged["kl"] == pytest.approx(kl, rel=5e-3)
    assert logged["ce"] == pytest.approx(cross, rel=1e-4)
    assert logged["loss"] == pytest.approx(0.75 * kl + 0.25 * cross, rel=5e-3)


def test_validation_does_not_depend_on_how_it_is_cut_into_batches(tmp_path, kd_of) -> None:
    """Each token counts the same, so a batch counts as often as it has tokens."""
    found = []
    for size in (1, 64):
        settings = kd_of(batch=BatchSettings(rows=size, captions=2))
        trainer = trainer_of("kd", settings, tmp_path / str(size))
        task = kd.kd_task(settings, trainer, tmp_path / "cache")
        found.append(trainer.validator(task, trainer.model)())
    assert {"validation_kl", "validation_ce"} < found[0].keys()
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("lost", [(), (kd.CACHE_FOLDER,)])
def test_a_killed_distillation_goes_on_with_the_same_losses(tmp_path, kd_of, lost) -> None:
    settings = kd_of(
        training=replace(FIT, steps=9, save_every=5, log_every=2),
        validation=ValidationSettings(every=4, rows=6),
        student=StudentSettings(speech_dropout=0.2, act_mode="measured"),
    )
    assert_goes_on_alike(kd.train_kd, settings, tmp_path, lost=lost)


def test_a_long_label_keeps_its_beginning_and_its_end(tmp_path: Path, kd_of: Settings) -> None:
    given = {
        "data": kd_of().data,
        "training": FIT,
        "model": kd_of().model,
        "batch": COMMON["batch"],
    }
    whole, cut = kd.CeSettings(**given), kd.CeSettings(**given, label_tokens=5)
    trainer = trainer_of("ce", whole, tmp_path)
    sample = trainer.validation_samples()[0]
    long, short = (one.row(trainer.prompter, sample) for one in (whole, cut))
    assert short.prompt_ids == long.prompt_ids
    assert min(map(len, long.responses)) > 5
    assert short.responses == tuple((*ids[:4], ids[-1]) for ids in long.responses)
    assert {ids[-1] for ids in short.responses} == {trainer.model.vocabulary.eos_id}
    assert kd.ce_task(cut, trainer).rows_of(sample) == [short]


def test_the_rival_sees_the_same_batches_and_learns_too(tmp_path: Path, kd_of: Settings) -> None:
    settings = kd_of()
    rival = kd.CeSettings(
        data=settings.data,
        training=replace(FIT, steps=100, save_every=100),
        model=settings.model,
        batch=settings.batch,
        validation=ValidationSettings(every=50, rows=30),
    )
    mine, theirs = trainer_of("kd", settings, tmp_path), trainer_of("ce", rival, tmp_path)
    tasks = {
        mine: kd.kd_task(settings, mine, tmp_path / "cache"),
        theirs: kd.ce_task(rival, theirs),
    }
    for number in (0, 5, 40):
        one, other = (
            task.batch(trainer.sampler(task.length_of).samples_at(number)).shared
            for trainer, task in tasks.items()
        )
        np.testing.assert_array_equal(one.input_ids, other.input_ids)
        np.testing.assert_array_equal(one.target_ids, other.target_ids)
    assert "kl" not in run(kd.train_ce, rival, tmp_path / "run")
    found = validations(tmp_path / "run", "validation_ce")
    assert found[-1] < found[0]


def test_measured_clues_are_part_of_the_model_trained_with_them(tmp_path, rows, kd_of) -> None:
    data = DataSettings(rows=(rows,), languages={"en": 1.0})
    student = StudentSettings(act_mode="measured")
    run_kd(kd_of(training=ONE_STEP, student=student, data=data), tmp_path)
    meta = read_meta(tmp_path / "model")
    assert (meta.act_mode, meta.languages) == ("measured", ("en",))


def test_speech_tokens_of_another_tokenizer_are_refused(tmp_path, rows, kd_of) -> None:
    run_kd(kd_of(training=ONE_STEP), tmp_path / "run")
    start = ModelSettings(start=tmp_path / "run" / "model")
    other, bigger, silent = (tmp_path / f"{name}.jsonl" for name in ("other", "bigger", "silent"))
    write_rows(other, replace(SOURCE, fingerprint="0" * 16), tiny_rows(20))
    write_rows(bigger, replace(SOURCE, codebook_size=99), tiny_rows(20))
    write_rows(silent, SOURCE, [replace(row, speech=None) for row in tiny_rows(20)])
    for settings, message in (
        (kd_of(rows, other), "make both with one tokenizer"),
        (kd_of(other, model=start), "make the rows again"),
        (kd_of(bigger, model=start), "1 x 99"),
        (kd_of(silent), "no row of split 'train'"),  # they are for the warm-up only
    ):
        with pytest.raises(DataError, match=message):
            run_kd(settings, tmp_path / "refused")
    # A warm-up has trained no speech token: any codes will do.
    run_kd(kd_of(other, training=ONE_STEP), tmp_path / "other")
    run_kd(kd_of(bigger, training=ONE_STEP), tmp_path / "bigger")


def test_a_teacher_of_another_vocabulary_or_of_none_is_refused(tmp_path, rows, kd_of) -> None:
    model = ModelSettings(new=replace(NEW, text_vocabulary=300))
    other = Path(warm_up(rows, tmp_path / "other", training=ONE_STEP, model=model)["model"])
    with pytest.raises(RecipeError, match="not the student's"):
        run_kd(kd_of(teacher=TeacherSettings(model=other)), tmp_path / "run")
    with pytest.raises(RecipeError, match="the teacher needs a model"):
        KdSettings(data=DataSettings(rows=(rows,)), training=FIT)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (ModelNotes(), ModelNotes(license="CC0", trained_on=("a corpus",))),
        (ModelNotes(summary="Another."), ModelNotes(summary="Another.")),
    ],
)
def test_a_stage_keeps_the_notes_of_its_start_but_no_scores(rows, warm, tmp_path, own, expected):
    start = tmp_path / "start"
    shutil.copytree(warm, start)
    notes = ModelNotes(license="CC0", trained_on=("a corpus",), scores={"CIDEr-D": "0.3"})
    write_meta(start, replace(read_meta(start), notes=notes))
    model = ModelSettings(start=start)
    warm_up(rows, tmp_path / "run", training=ONE_STEP, model=model, notes=own)
    assert read_meta(tmp_path / "run" / "model").notes == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (CaptionLimits(), CaptionLimits(max_tokens=50, max_speech_s=15.0)),
        (CaptionLimits(max_tokens=40), CaptionLimits(max_tokens=40, max_speech_s=15.0)),
    ],
)
def test_a_stage_keeps_the_limits_of_its_start(rows, warm, tmp_path, own, expected) -> None:
    start = tmp_path / "start"
    shutil.copytree(warm, start)
    limits = CaptionLimits(max_tokens=50, max_speech_s=15.0)
    write_meta(start, replace(read_meta(start), limits=limits))
    model = ModelSettings(start=start)
    warm_up(rows, tmp_path / "run", training=ONE_STEP, model=model, limits=own)
    assert read_meta(tmp_path / "run" / "model").limits == expected


def test_without_rows_to_validate_on_there_is_no_best(rows, warm, tmp_path) -> None:
    path = tmp_path / "train.jsonl"
    write_rows(path, SOURCE, [row for row in read_rows(rows) if row.split == "train"])
    best = ValidationSettings(best="loss", patience=3)
    with pytest.raises(RecipeError, match="no row is of split 'validation'"):
        warm_up(path, tmp_path / "run", model=ModelSettings(start=warm), validation=best)


def test_sizes_of_a_new_model_are_counts() -> None:
    with pytest.raises(RecipeError, match="heads is 0, must be at least 1"):
        SizeSettings(heads=0)


def test_words_of_emotion_count_more_and_pieces_of_other_words_do_not() -> None:
    texts = ["She sounds angry and withdrawn.", "A sad voice, with joy.", "她很悲伤。"] * 3
    words = Vocabulary.of(train_text_tokenizer(texts, 400), codebook_size=1)
    table = kd.emotion_weights(words, 4.0)
    assert table is not None
    ids = {text: words.encode_text(text) for text in (" angry", " sad", "悲伤", " with", " voice")}
    assert all(len(one) == 1 for one in ids.values())
    assert [float(table[one]) for one in ids.values()] == [4.0, 4.0, 4.0, 1.0, 1.0]
    assert len(table) == words.text_vocab_size
    assert kd.emotion_weights(words, 1.0) is None


class OnTheDevice:
    """A model whose logits are on another device than what the objective was made with."""

    training = True
    device = torch.device("meta")

    def text_logits(self, shared: SharedPromptBatch) -> torch.Tensor:
        return torch.empty(len(shared.target_ids), 7, device=self.device)


def batch_of(target_ids: list[int]) -> TaskBatch:
    """A batch of one caption, the prompt apart."""
    empty, count = np.zeros((1, 1), dtype=np.int64), len(target_ids)
    shared = SharedPromptBatch(
        input_ids=empty,
        position_ids=empty,
        segment_ids=empty,
        attention=np.ones((1, 1, 1, 1), dtype=bool),
        predict_index=np.zeros(count, dtype=np.int64),
        target_ids=np.array(target_ids),
        target_response=np.zeros(count, dtype=np.int64),
        response_lengths=np.array([count]),
    )
    return TaskBatch(shared, None)


def test_weights_of_words_go_where_the_logits_are() -> None:
    losses = CaptionObjective(weights=torch.ones(7)).training_losses(
        OnTheDevice(), batch_of([0, 1, 2])
    )
    assert losses["loss"].device == OnTheDevice.device


def test_batches_of_one_step_count_by_the_weights_of_their_words(tmp_path, monkeypatch) -> None:
    """A step of two batches has the loss of one batch that holds both."""
    weights = torch.ones(7)
    weights[3] = 5.0
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    targets = [3, 3, 3, 0, 1, 2]
    objective = CaptionObjective(weights=weights)
    parts = [objective.weight_of(batch_of(part)) for part in (targets[:3], targets[3:])]
    assert parts == [15.0, 3.0]
    assert CaptionObjective().weight_of(batch_of(targets)) == 6
    whole, *halves = (
        caption_cross_entropy(logits[part], torch.tensor(targets)[part], weights=weights)
        for part in (slice(None), slice(3), slice(3, None))
    )
    found = sum(one * part for one, part in zip(halves, parts, strict=True)) / sum(parts)
    torch.testing.assert_close(found, whole)
    counted = []

    def count(*given: Any, weight_of: loop.WeightOf, **_: object) -> None:
        batch = given[2](0)
        counted.extend((weight_of(batch), len(batch.shared.target_ids)))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", count)
    settings = WarmupSettings(
        data=DataSettings(rows=(write_tiny(tmp_path),)),
        training=FIT,
        model=ModelSettings(new=NEW),
        emotion_weight=5.0,
    )
    with pytest.raises(KeyboardInterrupt):
        kd.train_warmup(settings, tmp_path / "run", resume=False)
    assert counted[0] > counted[1]
