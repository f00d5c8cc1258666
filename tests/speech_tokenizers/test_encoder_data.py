"""What the encoder is taught: draws, buckets, padding, masks and mixtures."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.errors import DataError
from aligncap.prosody.measurement import MELS
from aligncap.tokenizers.builtin import PROSODY, VIEWS, EncoderInput, Features
from aligncap.tokenizers.cache import FeatureStore, store_features
from aligncap.tokenizers.encoder_training import (
    UNKNOWN,
    Augmentation,
    EncoderBatches,
    EncoderExample,
    crop,
    make_batch,
    mask_frames,
    mix,
    sampling_weights,
)

STILL = Augmentation(voice=0.0, pace=0.0, channel=0.0, level=0.0, noise=0.0, cut=0.0)


def features_of(path: Path) -> Features:
    """Made from the name, which says how many frames there are."""
    frames = int(path.stem)
    chance = np.random.default_rng(frames)
    mel = chance.normal(-4, 1, (frames, MELS)).astype(np.float32)
    return Features(mel, np.full(frames, 200, np.float32), np.full(frames, 0.5, np.float32))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    paths = [Path(f"{frames}.wav") for frames in range(30, 94)]
    return store_features(tmp_path_factory.mktemp("features"), paths, features_of)


def batches_of(store: FeatureStore, **changes: object) -> EncoderBatches:
    clips = [EncoderExample("one", n % 8, n % 2) for n in range(len(store))]
    plain = {
        "store": store, "clips": clips, "weights": sampling_weights(clips, {"one": 1.0}),
        "augmentation": STILL, "size": 4, "longest_frames": 80, "mixup": 0.0, "masks": 0, "seed": 3,
    }  # fmt: skip
    return EncoderBatches(**{**plain, **changes})


def test_weights_by_hand():
    clips = (
        [EncoderExample("a", 0, 1)] * 4
        + [EncoderExample("a", 1, 1)]
        + [EncoderExample("b", 2, 0)] * 2
    )
    # In a: 4 clips of 4 ** -0.5 and one of 1, that is 3 in all, which get 3 quarters; b the rest.
    expected = [0.75 / 6] * 4 + [0.75 / 3] + [0.125] * 2
    np.testing.assert_allclose(sampling_weights(clips, {"a": 3.0, "b": 1.0}), expected)


def test_a_corpus_without_a_share_is_named():
    with pytest.raises(DataError, match="'b' has no share"):
        sampling_weights([EncoderExample("b", 0, 0)], {"a": 1.0})


def test_the_same_number_gives_the_same_batch_and_another_number_another(store):
    lively = {"augmentation": Augmentation(), "mixup": 0.3, "masks": 2}
    one, other = batches_of(store, **lively), batches_of(store, **lively)
    other(11)  # what was asked for before plays no part
    first, again, next_one = one(5), other(5), one(6)
    for before, after in zip(first[:5], again[:5], strict=True):
        torch.testing.assert_close(before, after, atol=0, rtol=0)
    assert first.number == 5
    assert first.views.shape != next_one.views.shape or not torch.equal(first[0], next_one[0])


def test_clips_of_like_length_share_a_batch(store):
    lengths = [batches_of(store, longest_frames=500)(n).mask.sum(1) for n in range(8)]
    ranges = sorted((int(each.min()), int(each.max())) for each in lengths)
    assert all(here[1] <= after[0] for here, after in pairwise(ranges))
    assert ranges[0][1] < ranges[-1][0]


def test_clips_of_weight_nought_are_never_drawn(store):
    weights = np.zeros(len(store))
    weights[10] = 1.0
    batch = batches_of(store, weights=weights)(0)
    assert batch.mask.sum(1).tolist() == [40.0] * 4  # clip 10 has 40 frames
    assert batch.emotion.argmax(1).tolist() == [2] * 4


def test_a_shifted_voice_loses_its_gender_only(store):
    clips = [EncoderExample("one", 3, 1)] * len(store)
    batch = batches_of(store, clips=clips, augmentation=Augmentation(voice=0.5))(0)
    assert UNKNOWN in batch.gender.tolist()
    assert batch.emotion.argmax(1).tolist() == [3] * 4


def test_long_clips_are_cut_to_a_stretch_of_themselves():
    features = features_of(Path("90"))
    starts = Counter()
    for seed in range(40):
        cut = crop(features, 60, np.random.default_rng(seed))
        (start,) = np.flatnonzero(features.mel[:, 0] == cut.mel[0, 0])
        np.testing.assert_array_equal(cut.mel, features.mel[start : start + 60])
        starts[int(start)] += 1
    assert min(starts) < 8
    assert max(starts) > 22
    assert crop(features, 90, np.random.default_rng(0)) is features


def test_hiding_leaves_the_original_and_hides_time_in_both_streams():
    inputs = EncoderInput(np.ones((VIEWS, 50, MELS), np.float32), np.ones((50, PROSODY), "f4"))
    hidden = mask_frames(inputs, 3, np.random.default_rng(1))
    assert inputs.views.all()
    assert inputs.prosody.all()
    silent = ~hidden.prosody.any(axis=1)
    assert 0 < silent.sum() <= 30
    assert not hidden.views[:, silent].any()
    assert (~hidden.views[0, ~silent].any(axis=0)).sum() <= 27
    assert mask_frames(inputs, 0, np.random.default_rng(1)).views.all()


def test_a_batch_is_padded_and_its_labels_are_told_apart():
    inputs = [
        EncoderInput(np.full((VIEWS, n, MELS), 2, "f4"), np.full((n, PROSODY), 3, "f4"))
        for n in (5, 17)
    ]
    clips = [EncoderExample("a", 4, 1), EncoderExample("a", UNKNOWN, UNKNOWN)]
    batch = make_batch(inputs, clips, [float(np.e), float("nan")])
    assert batch.views.shape == (2, VIEWS, 24, MELS)
    assert batch.mask.sum(1).tolist() == [5, 17]
    assert batch.views.sum() == 2 * VIEWS * MELS * (5 + 17)
    assert not batch.prosody[0, 5:].any()
    assert batch.emotion.tolist() == [[0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]
    assert batch.gender.tolist() == [1, UNKNOWN]
    assert batch.pace[0] == pytest.approx(1.0)
    assert batch.pace[1].isnan()


def test_a_mixture_mixes_inputs_and_labels_alike():
    chance = np.random.default_rng(2)
    inputs = [
        EncoderInput(chance.random((VIEWS, n, MELS), "f4"), chance.random((n, PROSODY), "f4"))
        for n in (8, 16, 24)
    ]
    batch = make_batch(
        inputs,
        [EncoderExample("a", 0, 1), EncoderExample("a", 1, 0), EncoderExample("a", 2, -1)],
        [2.0] * 3,
    )
    mixed = mix(batch, 0.3, np.random.default_rng(6))
    # The emotions, all different, say with whom and how much each clip was mixed.
    other = np.random.default_rng(6)
    share = max(drawn := other.beta(0.3, 0.3), 1 - drawn)
    partner = other.permutation(3).tolist()
    assert share >= 0.5
    for row, beside in enumerate(partner):
        expected = share * batch.views[row] + (1 - share) * batch.views[beside]
        torch.testing.assert_close(mixed.views[row], expected)
        assert mixed.emotion[row, beside] >= (1 - share) - 1e-6
        assert mixed.emotion[row].sum() == pytest.approx(1.0)
        assert mixed.mask[row].sum() == max(batch.mask[row].sum(), batch.mask[beside].sum())
        both = batch.gender[row] >= 0 and batch.gender[beside] >= 0
        blended = share * batch.gender[row] + (1 - share) * batch.gender[beside]
        assert mixed.gender[row] == pytest.approx(float(blended if both else batch.gender[row]))


def test_stored_features_come_back_and_are_measured_once(tmp_path):
    paths = [Path("12.wav"), Path("7.wav"), Path("30.wav")]
    store_features(tmp_path, paths, features_of)

    def never(path: Path) -> Features:
        raise AssertionError(path)

    store = store_features(tmp_path, paths, never)
    assert [store.frames(n) for n in range(len(store))] == [12, 7, 30]
    for number, path in enumerate(paths):
        expected, found = features_of(path), store[number]
        np.testing.assert_allclose(found.mel, expected.mel, rtol=1e-3, atol=1e-3)  # float16
        np.testing.assert_allclose(found.pitch_hz, expected.pitch_hz)
        np.testing.assert_allclose(found.strength, expected.strength)


def test_other_files_or_another_order_are_measured_anew(tmp_path):
    store_features(tmp_path, [Path("12.wav"), Path("7.wav")], features_of)
    store = store_features(tmp_path, [Path("7.wav"), Path("12.wav")], features_of)
    assert [store.frames(n) for n in range(2)] == [7, 12]


def test_no_files_are_an_error(tmp_path):
    with pytest.raises(DataError, match="no clips"):
        store_features(tmp_path, [], features_of)
