"""Warm-up, KD and CE from recipe to model folder, on a made-up corpus."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aligncap.alignment import kd
from aligncap.alignment.examples import BatchSettings, DataSettings, StudentSettings, write_rows
from aligncap.alignment.init_model import ModelSettings, SizeSettings
from aligncap.alignment.kd import KdSettings, TeacherSettings, WarmupSettings
from aligncap.alignment.losses import caption_cross_entropy, kl_to_teacher
from aligncap.alignment.trainer import StageTrainer, ValidationSettings, read_training_rows
from aligncap.captioner.checkpoint import ModelNotes, load_torch, read_meta, write_meta
from aligncap.captioner.model import AdapterSettings
from aligncap.errors import DataError, RecipeError
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from support import recipe_runs
from support.recipe_runs import assert_goes_on_alike
from support.rows import SOURCE, tiny_rows, trace, write_tiny

NEW = SizeSettings(hidden=32, layers=2, heads=2, text_vocabulary=330)
FIT = FitSettings(
    steps=160, learning_rate=1e-2, warmup_steps=10, save_every=80, log_every=20, ema_decay=0.95
)
VALIDATION = ValidationSettings(every=80, rows=30)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("rows"), count=90)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Path:
    """The model folder of a warm-up that has learnt what clues are for."""
    output = tmp_path_factory.mktemp("warmup") / "run"
    output.mkdir()
    settings = WarmupSettings(
        data=DataSettings(rows=(rows,)),
        training=FIT,
        model=ModelSettings(new=NEW),
        batch=BatchSettings(rows=8, captions=2),
        validation=VALIDATION,
    )
    summary = kd.train_warmup(settings, output, resume=False)
    # Which of two English wordings is a coin toss; the rest follows from the clues.
    assert float(summary["validation_ce"]) < 0.4  # type: ignore[arg-type]
    return Path(str(summary["model"]))


def kd_settings(rows: Path, warm: Path, **changes: object) -> KdSettings:
    given: dict[str, object] = {
        "data": DataSettings(rows=(rows,)),
        "training": FIT,
        "model": ModelSettings(start=warm),
        "batch": BatchSettings(rows=8, captions=2),
        "validation": VALIDATION,
        **changes,
    }
    return KdSettings(**given)  # type: ignore[arg-type]


run_kd = partial(recipe_runs.run, kd.train_kd)


def validations(output: Path, name: str) -> list[float]:
    return [line[name] for line in read_log(output) if name in line]


def test_distillation_brings_the_student_to_the_teacher(
    tmp_path: Path, rows: Path, warm: Path
) -> None:
    """On clips never heard, the codes alone must come to say what the clues say."""
    summary = run_kd(kd_settings(rows, warm), tmp_path / "run")
    # With the same code for every frame it ends at 0.04: the best of those who cannot hear.
    assert summary["validation_kl"] < 0.01
    assert summary["validation_ce"] < 0.4
    meta = read_meta(tmp_path / "run" / "model")
    assert (meta.languages, meta.act_mode, meta.weights) == (("en", "zh"), "none", "full")
    assert meta.tokenizer.fingerprint == SOURCE.fingerprint
    assert meta.provenance["kind"] == "kd"
    # What is saved is the average, as validated.
    saved = load_torch(tmp_path / "run" / "model")
    average = load_file(tmp_path / "run" / "checkpoint-160" / "average.safetensors")
    torch.testing.assert_close(dict(saved.named_parameters()), average)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_first_loss_is_that_of_the_equations(
    tmp_path: Path, rows: Path, warm: Path, temperature: float
) -> None:
    """By another road: one batch's losses from plain forwards, prompt by prompt."""
    settings = kd_settings(
        rows,
        warm,
        training=replace(FIT, steps=1, log_every=1, ema_decay=None),
        teacher=TeacherSettings(top_k=10**6, temperature=temperature),
        loss=kd.LossSettings(kl_weight=0.75, ce_weight=0.25),
    )
    run_kd(settings, tmp_path / "run")
    logged = trace(tmp_path / "run")[0]
    trainer = StageTrainer(
        settings, tmp_path / "again", kind="kd", data=read_training_rows([rows], needs_speech=True)
    )
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


def test_validation_does_not_depend_on_how_it_is_cut_into_batches(
    tmp_path: Path, rows: Path, warm: Path
) -> None:
    """Each token counts the same, so a batch counts as often as it has tokens."""
    found = []
    for size in (1, 64):
        settings = kd_settings(rows, warm, batch=BatchSettings(rows=size, captions=2))
        data = read_training_rows([rows], needs_speech=True)
        trainer = StageTrainer(settings, tmp_path / str(size), kind="kd", data=data)
        task = kd.kd_task(settings, trainer, tmp_path / "cache")
        found.append(trainer.validator(task, trainer.model)())
    assert {"validation_kl", "validation_ce"} < found[0].keys()
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("cache_survives", [True, False])
def test_a_killed_distillation_goes_on_with_the_same_losses(
    tmp_path: Path, rows: Path, warm: Path, cache_survives: bool
) -> None:
    settings = kd_settings(
        rows,
        warm,
        training=replace(FIT, steps=9, save_every=5, log_every=2),
        validation=ValidationSettings(every=4, rows=6),
        student=StudentSettings(speech_dropout=0.2, act_mode="measured"),
    )
    lost = () if cache_survives else (kd.CACHE_FOLDER,)
    assert_goes_on_alike(kd.train_kd, settings, tmp_path, lost=lost)


def test_under_lora_the_base_is_the_teacher_and_stays_as_it_was(
    tmp_path: Path, rows: Path, warm: Path
) -> None:
    settings = kd_settings(
        rows,
        warm,
        training=replace(FIT, steps=60, save_every=60),
        model=ModelSettings(start=warm, lora=AdapterSettings(rank=8)),
        validation=ValidationSettings(every=30, rows=30),
    )
    run_kd(settings, tmp_path / "run")
    first, last = (validations(tmp_path / "run", "validation_kl")[i] for i in (0, -1))
    assert last < first
    folder = tmp_path / "run" / "model"
    meta = read_meta(folder)
    assert (meta.weights, meta.base) == ("adapter", str(warm))
    adapted, base = load_torch(folder), load_torch(warm)
    frozen = {name: p for name, p in adapted.named_parameters() if "q_proj.base_layer" in name}
    assert frozen
    for name, parameter in frozen.items():
        plain = name.replace("base_model.model.", "").replace("base_layer.", "")
        torch.testing.assert_close(parameter, dict(base.named_parameters())[plain])


def test_the_rival_sees_the_same_batches_and_learns_too(
    tmp_path: Path, rows: Path, warm: Path
) -> None:
    settings = kd_settings(rows, warm)
    rival = kd.CeSettings(
        data=settings.data,
        training=replace(FIT, steps=100, save_every=100),
        model=settings.model,
        batch=settings.batch,
        validation=ValidationSettings(every=50, rows=30),
    )
    both = [
        StageTrainer(
            s, tmp_path / kind, kind=kind, data=read_training_rows([rows], needs_speech=True)
        )
        for kind, s in (("kd", settings), ("ce", rival))
    ]
    tasks = [
        kd.kd_task(settings, both[0], tmp_path / "cache"),
        kd.ce_task(rival, both[1]),
    ]
    for number in (0, 5, 40):
        mine, theirs = (
            task.batch(trainer.sampler(task.length_of).samples_at(number)).shared
            for trainer, task in zip(both, tasks, strict=True)
        )
        np.testing.assert_array_equal(mine.input_ids, theirs.input_ids)
        np.testing.assert_array_equal(mine.target_ids, theirs.target_ids)
    (tmp_path / "run").mkdir()
    summary = kd.train_ce(rival, tmp_path / "run", resume=False)
    assert "kl" not in summary
    found = validations(tmp_path / "run", "validation_ce")
    assert found[-1] < found[0]


def test_measured_clues_are_part_of_the_model_that_was_trained_with_them(
    tmp_path: Path, rows: Path, warm: Path
) -> None:
    settings = kd_settings(
        rows,
        warm,
        training=replace(FIT, steps=1),
        student=StudentSettings(act_mode="measured"),
        data=DataSettings(rows=(rows,), languages={"en": 1.0}),
    )
    run_kd(settings, tmp_path / "run")
    meta = read_meta(tmp_path / "run" / "model")
    assert (meta.act_mode, meta.languages) == ("measured", ("en",))


def test_speech_tokens_of_another_tokenizer_are_refused(
    tmp_path: Path, rows: Path, warm: Path
) -> None:
    run_kd(kd_settings(rows, warm, training=replace(FIT, steps=1)), tmp_path / "run")
    other = tmp_path / "other.jsonl"
    write_rows(other, replace(SOURCE, fingerprint="0" * 16), tiny_rows(20))
    with pytest.raises(DataError, match="make both with one tokenizer"):
        run_kd(kd_settings(rows, warm, data=DataSettings(rows=(rows, other))), tmp_path / "a")
    with pytest.raises(DataError, match="make the rows again"):
        run_kd(kd_settings(other, tmp_path / "run" / "model"), tmp_path / "b")
    # A warm-up has trained no speech token: any codes of that size will do.
    run_kd(kd_settings(other, warm, training=replace(FIT, steps=1)), tmp_path / "c")
    bigger = tmp_path / "bigger.jsonl"
    write_rows(bigger, replace(SOURCE, codebook_size=99), tiny_rows(20))
    with pytest.raises(DataError, match="1 x 99"):
        run_kd(kd_settings(bigger, warm), tmp_path / "d")


def test_rows_without_speech_are_for_the_warm_up_only(tmp_path: Path, warm: Path) -> None:
    silent = tmp_path / "silent.jsonl"
    write_rows(silent, SOURCE, [replace(row, speech=None) for row in tiny_rows(20)])
    with pytest.raises(DataError, match="no row of split 'train'"):
        run_kd(kd_settings(silent, warm), tmp_path / "run")


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path, rows: Path, warm: Path) -> None:
    output = tmp_path / "other"
    output.mkdir()
    settings = WarmupSettings(
        data=DataSettings(rows=(rows,)),
        training=replace(FIT, steps=1),
        model=ModelSettings(new=replace(NEW, text_vocabulary=300)),
    )
    other = Path(str(kd.train_warmup(settings, output, resume=False)["model"]))
    with pytest.raises(RecipeError, match="not the student's"):
        run_kd(kd_settings(rows, warm, teacher=TeacherSettings(model=other)), tmp_path / "run")


def test_distillation_without_anybody_who_reads_is_refused(rows: Path) -> None:
    with pytest.raises(RecipeError, match="the teacher needs a model"):
        KdSettings(data=DataSettings(rows=(rows,)), training=FIT)


def test_a_stage_keeps_the_notes_of_its_start_but_not_its_scores(
    rows: Path, warm: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(warm, start)
    notes = ModelNotes(license="CC0", trained_on=("a corpus",), scores={"CIDEr-D": "0.3"})
    write_meta(start, replace(read_meta(start), notes=notes))
    for own, expected in (
        (ModelNotes(), ModelNotes(license="CC0", trained_on=("a corpus",))),
        (ModelNotes(summary="Another."), ModelNotes(summary="Another.")),
    ):
        settings = WarmupSettings(
            data=DataSettings(rows=(rows,)),
            training=replace(FIT, steps=1),
            model=ModelSettings(start=start),
            notes=own,
        )
        summary = kd.train_warmup(settings, tmp_path / f"run-{own.summary}", resume=False)
        assert read_meta(Path(str(summary["model"]))).notes == expected
