"""The joint speech-text space: its equations by other roads, and a training from rows to folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.alignment import joint, retrieval, space
from aligncap.alignment.examples import BatchSettings, DataSettings, Sample, write_rows
from aligncap.alignment.joint import JointSettings, SpaceSettings, SpaceValidation
from aligncap.alignment.losses import inject_noise, project_on_memory, symmetric_infonce
from aligncap.captioner.prompts import student_acoustic_prompt
from aligncap.clues import retrieved_clues
from aligncap.errors import DataError, MissingModelError
from aligncap.tokenizers.clue_retrieval import CLUES_FILE, read_clues
from aligncap.training.settings import FitSettings
from aligncap.values import Facts, SpeechTokens
from support.recipe_runs import assert_goes_on_alike, run
from support.rows import FEELINGS, SOURCE, tiny_rows, write_tiny

FACTS = Facts(1.0, 1.0, {})


def test_the_contrastive_loss_by_hand() -> None:
    """Two clips and two texts at a temperature of 1/ln 4: each softmax is of 4^cosine."""
    speech, text = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # Cosines are [[1, .6], [0, .8]]; 4^x of them, and the share of the diagonal by row and column.
    one, other = 4.0, 4**0.6
    zero, most = 1.0, 4**0.8
    shares = [one / (one + other), most / (zero + most), one / (one + zero), most / (other + most)]
    expected = -np.log(shares).mean()
    found = symmetric_infonce(speech, text, float(np.log(np.log(4))))
    assert float(found) == pytest.approx(expected, abs=1e-6)
    scale = torch.tensor(np.log(np.log(4)), dtype=torch.float32)
    assert float(symmetric_infonce(text, speech, scale)) == pytest.approx(expected, abs=1e-6)


def test_a_batch_of_the_same_clip_has_the_loss_of_a_guess() -> None:
    same = torch.tensor([[0.6, 0.8]]).expand(5, 2)
    assert float(symmetric_infonce(same, same, 3.0)) == pytest.approx(np.log(5), abs=1e-6)


def test_the_temperature_learns() -> None:
    """Where all clips find their texts, a lower temperature lowers the loss."""
    scale = torch.tensor(1.0, requires_grad=True)
    symmetric_infonce(torch.eye(4), torch.eye(4), scale).backward()
    assert scale.grad is not None
    assert float(scale.grad) < 0


def test_noise_has_its_variance_and_stays_on_the_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    dimensions, variance = 64, 0.015
    given = 7.0 * torch.nn.functional.normalize(torch.randn(4000, dimensions, generator=generator))
    noisy = inject_noise(given, variance, generator)
    torch.testing.assert_close(noisy.norm(dim=1), torch.ones(4000))
    # Of x + n with |x| = 1 and n orthogonal to it in all but one of D directions, the tangent of
    # the angle has the mean square (D - 1) variance / (1 + variance).
    cosine = (noisy * given).sum(1) / 7.0
    tangent = (1 / cosine**2 - 1)[cosine > 0].mean()
    expected = (dimensions - 1) * variance
    assert float(tangent) == pytest.approx(expected, rel=0.1)
    # What is off the given direction is alike in all others, with no mean.
    off = noisy / cosine[:, None] - given / 7.0
    assert float(off.mean()) == pytest.approx(0.0, abs=3 * (variance / off.numel()) ** 0.5)
    torch.testing.assert_close(inject_noise(given, 0.0), given / 7.0)


def test_projection_by_brute_force() -> None:
    chance = np.random.default_rng(0)
    memory, queries = (chance.standard_normal((count, 6)) for count in (9, 4))
    memory /= np.linalg.norm(memory, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = project_on_memory(torch.from_numpy(queries), torch.from_numpy(memory)).numpy()
    for query, projected in zip(queries, found, strict=True):
        weights = [
            np.exp(sum(a * b for a, b in zip(query, one, strict=True)) / 0.01) for one in memory
        ]
        mean = sum(weight * one for weight, one in zip(weights, memory, strict=True)) / sum(weights)
        np.testing.assert_allclose(projected, mean / np.linalg.norm(mean), atol=1e-9)  # fmt: skip
    # At a temperature near 0 it is the nearest caption itself.
    nearest = project_on_memory(
        torch.from_numpy(queries), torch.from_numpy(memory), temperature=1e-4
    )
    np.testing.assert_allclose(nearest.numpy(), memory[(queries @ memory.T).argmax(1)], atol=1e-6)


SETTINGS = {
    "training": FitSettings(
        precision="float32", steps=60, learning_rate=5e-3, warmup_steps=5, save_every=30,
        log_every=20, ema_decay=0.9,
    ),
    "model": SpaceSettings(width=16, hidden=32, layers=1, heads=2, text_vocabulary=330),
    "batch": BatchSettings(rows=12, captions=1),
    "validation": SpaceValidation(every=30, rows=30),
}  # fmt: skip


def settings_of(path: Path, **changes: object) -> JointSettings:
    return JointSettings(**{"data": DataSettings(rows=(path,)), **SETTINGS, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The run of a training, and what it gave."""
    folder = tmp_path_factory.mktemp("joint")
    summary = run(joint.train_joint, settings_of(write_tiny(folder, count=90)), folder / "run")
    return folder, summary


def test_clips_come_near_to_what_people_say_of_them(trained) -> None:
    folder, summary = trained
    assert summary["validation_emotion_1"] > 0.95
    found = space.load_space(folder / "run" / "model")
    clips = tiny_rows(90)
    speech = found.embed_speech([SpeechTokens(row.speech) for row in clips])
    np.testing.assert_allclose(np.linalg.norm(speech, axis=1), 1.0, atol=1e-5)
    # Clue words too have a place: P_act of one word is nearest for clips of that feeling.
    words = found.embed_texts([f"Feeling {feeling}" for feeling in FEELINGS])
    right = (speech @ words.T).argmax(1) == np.arange(90) % len(FEELINGS)
    assert right.mean() > 0.95


def test_padding_and_company_change_nothing(trained) -> None:
    folder, _ = trained
    found = space.load_space(folder / "run" / "model")
    clips = [SpeechTokens(row.speech) for row in tiny_rows(6)]
    texts = ["She sounds sad.", "An angry, loud voice, and a long one at that.", "她很高兴。"]
    for embed, given in ((found.embed_speech, clips), (found.embed_texts, texts)):
        alone = np.concatenate([embed([one]) for one in given])
        np.testing.assert_allclose(embed(given), alone, atol=1e-6)


def test_a_space_goes_on_from_another(trained, tmp_path: Path) -> None:
    folder, summary = trained
    start = SpaceSettings(start=folder / "run" / "model")
    fit = replace(SETTINGS["training"], steps=1, learning_rate=1e-6, ema_decay=None)
    again = settings_of(folder / "rows.jsonl", model=start, training=fit)
    found = run(joint.train_joint, again, tmp_path / "again")
    assert found["validation_loss"] == pytest.approx(summary["validation_loss"], rel=1e-2)


def test_a_run_goes_on_where_it_was(trained, tmp_path: Path) -> None:
    folder, _ = trained
    assert_goes_on_alike(joint.train_joint, settings_of(folder / "rows.jsonl"), tmp_path)


def test_validation_does_not_need_the_space_where_its_vectors_are(trained, monkeypatch) -> None:
    """The vectors are numpy's, the learnt scale is on the device of the space."""
    given: list[object] = []
    original = symmetric_infonce

    def noted(speech: torch.Tensor, text: torch.Tensor, scale: float) -> torch.Tensor:
        given.append(scale)
        return original(speech, text, scale)

    monkeypatch.setattr(joint, "symmetric_infonce", noted)
    folder, _ = trained
    found = space.load_space(folder / "run" / "model")
    samples = [Sample(place, "en", (0,), None) for place in range(6)]
    loss = joint.validated(found, tiny_rows(6), samples, 3)["validation_loss"]
    assert [type(one) for one in given] == [float, float]
    found.log_scale.data.fill_(1e3)  # no more than the largest in training either
    assert joint.validated(found, tiny_rows(6), samples, 3)["validation_loss"] < 1e3
    assert given[2:] == [space.LARGEST_SCALE] * 2
    assert np.isfinite(loss)


def test_some_texts_are_clues_of_the_caption() -> None:
    row = replace(tiny_rows(1)[0], act={"en": "Feeling sad, low-pitched, and slow"})
    texts = {joint.text_of(row, Sample(0, "en", (1,), seed), 0.5) for seed in range(200)}
    caption = row.captions["en"][1]
    assert {
        caption,
        "Feeling sad",
        "Feeling low-pitched and slow",
        "Feeling sad, low-pitched, and slow",
    } <= texts
    assert all(text == caption or text.startswith("Feeling ") for text in texts)
    assert joint.text_of(row, Sample(0, "en", (1,), None), 1.0) == caption


def test_what_is_no_space_is_one_line(trained, tmp_path: Path) -> None:
    folder, _ = trained
    with pytest.raises(MissingModelError, match="no joint space; train one"):
        space.load_space(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="is of no joint space"):
        space.load_space(tmp_path)
    found = space.load_space(folder / "run" / "model")
    with pytest.raises(DataError, match="must be 1 x frames below 12"):
        found.embed_speech([SpeechTokens(np.full((1, 3), 12))])


def test_clue_words_are_retrieved_as_the_space_has_them(trained, tmp_path: Path) -> None:
    """numpy's road to the nearest words is torch's, and they are the clip's own."""
    folder, _ = trained
    found, clips = space.load_space(folder / "run" / "model"), tiny_rows(90)
    retriever = retrieval.retriever_of(found, clips)
    assert retriever.words == ("emotion:angry", "emotion:happy", "emotion:sad")
    retriever.save(tmp_path / CLUES_FILE)
    again = read_clues(tmp_path / CLUES_FILE)
    tokens = [SpeechTokens(row.speech) for row in clips]
    points = np.stack([again.embed(one.codes) for one in tokens])
    np.testing.assert_allclose(points, found.embed_speech(tokens), atol=1e-5)
    right = 0
    for row, one in zip(clips, tokens, strict=True):
        heard = SpeechTokens(one.codes, {"clues": again.cosines(one.codes)})
        right += student_acoustic_prompt("retrieved", FACTS, heard, "en") == row.act["en"]
    assert right > 0.95 * len(clips)


def test_a_space_that_is_trained_further_has_its_own_clue_words(
    tmp_path: Path, monkeypatch
) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "encoder.onnx").write_bytes(b"made up")
    monkeypatch.setattr(joint, "find_encoder", lambda *_: encoder)
    rows = tiny_rows()
    write_rows(tmp_path / "rows.jsonl", replace(SOURCE, name="builtin"), rows)
    output = tmp_path / "run"
    for steps in (2, 4):
        fit = replace(SETTINGS["training"], steps=steps, save_every=2)
        settings = settings_of(tmp_path / "rows.jsonl", training=fit)
        run(joint.train_joint, settings, output, resume=steps > 2)
        kept = read_clues(output / "encoder" / CLUES_FILE)
        expected = retrieval.retriever_of(space.load_space(output / "model"), rows)
        assert kept.words == expected.words
        np.testing.assert_array_equal(kept.vectors, expected.vectors)
        files = sorted(path.name for path in (output / "encoder").iterdir())
        assert files == [CLUES_FILE, "encoder.onnx"]


def test_the_nearest_word_of_each_trait() -> None:
    near = {"emotion:sad": 0.9, "emotion:angry": 0.8, "pace:slow": 0.5, "pitch:low": -0.1}
    near |= {"volume:quiet": 0.3, "gender:male": 0.2}
    clues = retrieved_clues({"clues": near})
    assert [(one.trait, one.meaning) for one in clues] == [
        ("emotion", "sad"), ("pace", "slow"), ("volume", "quiet"), ("gender", "male"),
    ]  # fmt: skip
    assert len(retrieved_clues({"clues": near}, most=2)) == 2
    with pytest.raises(DataError, match="has no clue words"):
        retrieved_clues({})


def test_a_damaged_file_of_clue_words_is_one_line(tmp_path: Path) -> None:
    (tmp_path / CLUES_FILE).write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(DataError, match="is damaged"):
        read_clues(tmp_path / CLUES_FILE)
