"""Text-only training: captions' vectors in place of speech, and speech in their place later."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aligncap.alignment.examples import (
    Prompter,
    Sample,
    SpeechSource,
    StudentSettings,
    read_rows,
    read_source,
    write_rows,
)
from aligncap.alignment.joint_features import open_joint, open_space
from aligncap.alignment.space import JointSpace, SpaceShape, save_space
from aligncap.alignment.text_rows import TextRowsSettings, make_text_rows
from aligncap.audio import load
from aligncap.captioner.model import seeded
from aligncap.captioner.prompts import PromptBuilder, features_of
from aligncap.captioner.vocabulary import Vocabulary, train_text_tokenizer
from aligncap.errors import DataError, MissingModelError
from aligncap.tokenizers.builtin import open_builtin
from support.rows import tiny_rows

ROWS = [
    replace(row, captions={**row.captions, "en": tuple(f"f17 3|{t}" for t in row.captions["en"])})
    for row in tiny_rows(30)
]


@pytest.fixture(scope="module")
def source() -> SpeechSource:
    return SpeechSource.of(open_builtin())


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, source: SpeechSource) -> Path:
    """A space of random weights over the built-in tokenizer's codes."""
    tokenizer = train_text_tokenizer([t for row in ROWS for t in row.captions["en"]], 330)
    shape = SpaceShape(width=16, hidden=32, layers=1, heads=2, texts=330, source=source)
    folder = tmp_path_factory.mktemp("space") / "model"
    with seeded(0):
        save_space(folder, JointSpace(shape, tokenizer).eval())
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, space: Path, source: SpeechSource) -> Path:
    """The run of a recipe that makes rows with captions' vectors."""
    folder = tmp_path_factory.mktemp("text")
    write_rows(folder / "rows.jsonl", source, ROWS)
    settings = TextRowsSettings(rows=(folder / "rows.jsonl",), space=space, projected=True)
    make_text_rows(settings, folder / "run", resume=False)
    return folder / "run"


def vectors_of(path: Path) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for row in read_rows(path):
        ((language, (text,)),) = row.captions.items()
        assert row.features is not None
        found[row.split, text] = row.features.read()[0]
        assert language in ("en", "zh")
    return found


def test_a_row_is_a_caption_and_its_vector(written: Path, space: Path) -> None:
    rows = list(read_rows(written / "rows.jsonl"))
    source = read_source(written / "rows.jsonl")
    assert (source.name, source.codebooks, source.feature_width) == ("joint", 1, 16)
    train = [row for row in ROWS if row.split == "train"]
    plain = {text.partition("|")[2] for row in train for text in row.captions["en"]}
    plain |= {text for row in train for text in row.captions["zh"]}
    found = vectors_of(written / "rows.jsonl")
    assert {text for split, text in found if split == "train"} == plain
    # As often as captions are there, so often they are sampled.
    assert sum(row.weight for row in rows if row.split == "train") == 3 * len(train)
    texts = [text for _, text in found]
    expected = open_space(space).embed_texts(texts)
    np.testing.assert_allclose(np.stack(list(found.values())), expected, atol=1e-3)


def test_training_reads_no_sound(tmp_path: Path, space: Path, source: SpeechSource, written: Path):
    """Rows without speech, and so without anything that was made of sound, give the same."""
    silent = [replace(row, speech=None, measured={}, heard={}) for row in ROWS]
    write_rows(tmp_path / "rows.jsonl", source, silent)
    settings = TextRowsSettings(rows=(tmp_path / "rows.jsonl",), space=space, projected=True)
    make_text_rows(settings, tmp_path / "run", resume=False)
    mine, theirs = (
        (path / "rows.jsonl").read_text("utf-8").splitlines()[1:]
        for path in (tmp_path / "run", written)
    )
    assert mine == theirs
    first, second = (vectors_of(path / "rows.jsonl") for path in (tmp_path / "run", written))
    for name, vector in first.items():
        np.testing.assert_array_equal(vector, second[name])


def test_speech_stands_where_captions_stood(written: Path, space: Path, example_clips) -> None:
    """With projection by brute force; without, the space's own vector."""
    wave = load(example_clips[0])
    plain = open_joint(written / "encoder").encode(wave)
    heard = open_builtin().encode(wave)
    own = open_space(space).embed_speech([heard])
    assert plain.features is not None
    assert plain.codes.shape == (1, 1)
    np.testing.assert_allclose(plain.features.read(), own, atol=1e-3)
    assert plain.readout["emotion"] == heard.readout["emotion"]
    memory = np.stack([v for (split, _), v in vectors_of(written / "rows.jsonl").items()
                       if split == "train"]).astype(np.float64)  # fmt: skip
    weights = np.exp([float(own[0] @ one) / 0.01 for one in memory])
    mean = (weights / weights.sum()) @ memory
    projected = open_joint(written / "encoder", projected=1).encode(wave)
    assert projected.features is not None
    # Vectors are kept in half precision, and the temperature multiplies that by a hundred.
    cosine = projected.features.read()[0] @ (mean / np.linalg.norm(mean))
    assert cosine > 0.99
    assert open_joint(written / "encoder").fingerprint != (
        open_joint(written / "encoder", projected=1).fingerprint
    )


def test_validation_rows_may_hold_speech(tmp_path: Path, space: Path, source: SpeechSource) -> None:
    write_rows(tmp_path / "rows.jsonl", source, ROWS)
    settings = TextRowsSettings(rows=(tmp_path / "rows.jsonl",), space=space, validation="speech")
    make_text_rows(settings, tmp_path / "run", resume=False)
    rows = [r for r in read_rows(tmp_path / "run" / "rows.jsonl") if r.split == "validation"]
    originals = [row for row in ROWS if row.split == "validation"]
    assert [row.id for row in rows] == [row.id for row in originals]
    from aligncap.values import SpeechTokens

    own = open_space(space).embed_speech([SpeechTokens(row.speech) for row in originals])
    found = np.concatenate([row.features.read() for row in rows])
    np.testing.assert_allclose(found, own, atol=1e-3)
    assert not any("|" in text for row in rows for text in row.captions["en"])


def test_noise_is_of_training_alone_and_follows_the_seed(written: Path) -> None:
    rows = list(read_rows(written / "rows.jsonl"))
    texts = [text for row in rows for some in row.captions.values() for text in some]
    vocabulary = Vocabulary.of(train_text_tokenizer(texts, 330), codebook_size=1)
    prompter = Prompter(PromptBuilder(vocabulary, vectors=2), rows)

    def vector(seed: int | None, noise: float) -> np.ndarray:
        language = next(iter(rows[0].captions))
        sample = Sample(0, language, (0,), seed)
        row = prompter.student_row(sample, StudentSettings(noise=noise))
        found = features_of(row.prompt_ids)
        assert found is not None
        return found.read()[0]

    given = rows[0].features.read()[0]
    np.testing.assert_array_equal(vector(None, 0.1), given)
    np.testing.assert_array_equal(vector(1, 0.0), given)
    noisy = vector(1, 0.1)
    assert np.linalg.norm(noisy) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(noisy, vector(1, 0.1))
    assert np.abs(noisy - vector(2, 0.1)).max() > 1e-3


def test_what_is_missing_is_one_line(tmp_path: Path, space: Path, source: SpeechSource) -> None:
    with pytest.raises(MissingModelError, match="needs the folder of a space"):
        open_joint()
    with pytest.raises(MissingModelError, match="holds no memory of captions"):
        open_joint(space, projected=1)
    write_rows(tmp_path / "rows.jsonl", source, [replace(ROWS[0], split="validation")])
    settings = TextRowsSettings(rows=(tmp_path / "rows.jsonl",), space=space)
    with pytest.raises(DataError, match="no row of split 'train' has a caption"):
        make_text_rows(settings, tmp_path / "run", resume=False)
