"""Training of the built-in encoder: losses, augmentation, batches, dry run and short runs."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.prosody.measurement import MELS, log_mel
from aligncap.tokenizers import encoder_training as training
from aligncap.tokenizers.builtin import PROSODY, VIEWS, EncoderInput, Features
from aligncap.tokenizers.cache import FeatureStore, store_features
from aligncap.tokenizers.encoder import SpeechEncoder
from aligncap.tokenizers.encoder_training import UNKNOWN, EncoderExample, make_batch
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from aligncap.values import RATE_HZ
from speech_tokenizers.test_encoder import SIZE, clip_of, encoder
from support.signals import harmonics, waveform

OFF = dict.fromkeys(("voice", "pace", "channel", "level", "noise", "cut"), 0.0)


def features_of(path: Path) -> Features:
    """Random features by the name, which may say how many frames there are."""
    seed = int(path.stem) if path.stem.isdigit() else sum(path.stem.encode())
    random = np.random.default_rng(seed)
    frames = seed if path.stem.isdigit() else int(random.integers(20, 40))
    mel = random.normal(-4, 1, (frames, MELS)).astype(np.float32)
    return Features(mel, np.full(frames, 200, np.float32), np.full(frames, 0.5, np.float32))


FEATURES = features_of(Path("150.wav"))


def vary(seed: int, **strengths: float) -> training.Varied:
    """A copy with these variations only, or with the default ones."""
    settings = training.Augmentation(**OFF | strengths if strengths else {})
    return training.vary(FEATURES, settings, np.random.default_rng(seed))


class TestAugmentation:
    def test_switched_off_it_gives_the_same_back(self):
        varied = vary(0, noise=0.0)
        np.testing.assert_allclose(varied.features.mel, FEATURES.mel, atol=1e-5)
        assert (varied.voice_ratio, varied.pace_ratio, varied.level_nats) == (1.0, 1.0, 0.0)

    def test_the_same_seed_gives_the_same_copy(self):
        np.testing.assert_array_equal(vary(7).features.mel, vary(7).features.mel)

    @pytest.mark.parametrize("ratio", [0.8, 1.25])
    def test_a_shifted_voice_has_the_spectrum_of_a_sound_played_at_that_frequency(self, ratio):
        def spectrum(hertz):
            return log_mel(waveform(0.1 * harmonics(np.full(RATE_HZ, hertz), top_hz=7 * hertz)))

        shifted = training.shift_voice(spectrum(400.0), ratio)[50]
        real, same = spectrum(400.0 * ratio)[50], spectrum(400.0)[50]
        band = slice(4, 52)  # the lowest partial to the highest
        assert abs(int(shifted[band].argmax()) - int(real[band].argmax())) <= 1
        assert np.corrcoef(shifted[band], real[band])[0, 1] > 0.6
        assert np.corrcoef(same[band], real[band])[0, 1] < 0.4

    def test_pitch_and_duration_change_as_reported(self):
        for seed in range(20):
            varied = vary(seed, voice=0.12, pace=0.22)
            assert varied.features.pitch_hz[0] == pytest.approx(200 * varied.voice_ratio, rel=1e-5)
            assert len(varied.features) == pytest.approx(150 / varied.pace_ratio, abs=0.51)

    def test_the_level_moves_as_reported_and_noise_only_adds(self):
        louder = vary(5, level=1.2)
        moved = louder.features.mel - FEATURES.mel
        np.testing.assert_allclose(moved, louder.level_nats, atol=1e-5)
        assert (vary(2, noise=1.0).features.mel >= FEATURES.mel - 1e-5).all()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Clip n has 30 + n frames."""
    paths = [Path(f"{frames}.wav") for frames in range(30, 94)]
    return store_features(tmp_path_factory.mktemp("features"), paths, features_of)


def batches_of(store: FeatureStore, **changes: object) -> training.EncoderBatches:
    clips = [EncoderExample("one", n % 8, n % 2) for n in range(len(store))]
    plain = {
        "store": store, "clips": clips, "weights": training.sampling_weights(clips, {"one": 1.0}),
        "augmentation": training.Augmentation(**OFF), "size": 4, "longest_frames": 80,
        "mixup": 0.0, "masks": 0, "seed": 3,
    }  # fmt: skip
    return training.EncoderBatches(**{**plain, **changes})


class TestBatches:
    def test_weights_by_hand(self):
        sad, angry = (EncoderExample("a", emotion, 1) for emotion in (0, 1))
        other = EncoderExample("b", 2, 0)
        # In a: 4 clips of 4 ** -0.5 and one of 1: 3 in all, which get 3 quarters; b the rest.
        expected = [0.75 / 6] * 4 + [0.75 / 3] + [0.125] * 2
        found = training.sampling_weights([*[sad] * 4, angry, other, other], {"a": 3.0, "b": 1.0})
        np.testing.assert_allclose(found, expected)

    def test_a_batch_depends_on_its_number_alone(self, store):
        varied = {"augmentation": training.Augmentation(), "mixup": 0.3, "masks": 2}
        one, other = batches_of(store, **varied), batches_of(store, **varied)
        other(11)  # what was asked for before plays no part
        first, again, next_one = one(5), other(5), one(6)
        torch.testing.assert_close(first[:6], again[:6], atol=0, rtol=0, equal_nan=True)
        assert first.number == 5
        assert first.views.shape != next_one.views.shape or not torch.equal(first[0], next_one[0])

    def test_clips_of_like_length_share_a_batch(self, store):
        lengths = [batches_of(store, longest_frames=500)(n).mask.sum(1) for n in range(8)]
        ranges = sorted((int(each.min()), int(each.max())) for each in lengths)
        assert all(here[1] <= after[0] for here, after in pairwise(ranges))
        assert ranges[0][1] < ranges[-1][0]

    def test_clips_of_weight_zero_are_never_sampled(self, store):
        batch = batches_of(store, weights=np.eye(len(store))[10])(0)
        assert batch.mask.sum(1).tolist() == [40.0] * 4
        assert batch.emotion.argmax(1).tolist() == [2] * 4

    def test_a_shifted_voice_loses_its_gender_only(self, store):
        clips = [EncoderExample("one", 3, 1)] * len(store)
        batch = batches_of(store, clips=clips, augmentation=training.Augmentation(voice=0.5))(0)
        assert UNKNOWN in batch.gender.tolist()
        assert batch.emotion.argmax(1).tolist() == [3] * 4

    def test_long_clips_are_cut_to_a_part_of_themselves(self):
        features, starts = features_of(Path("90")), []
        for seed in range(40):
            cut = training.crop(features, 60, np.random.default_rng(seed))
            [start] = np.flatnonzero(features.mel[:, 0] == cut.mel[0, 0])
            np.testing.assert_array_equal(cut.mel, features.mel[start : start + 60])
            starts.append(start)
        assert min(starts) < 8
        assert max(starts) > 22
        assert training.crop(features, 90, np.random.default_rng(0)) is features

    def test_masking_is_of_a_copy_and_masks_time_in_both_streams(self):
        inputs = EncoderInput(np.ones((VIEWS, 50, MELS), np.float32), np.ones((50, PROSODY), "f4"))
        masked = training.mask_frames(inputs, 3, np.random.default_rng(1))
        assert inputs.views.all()
        assert inputs.prosody.all()
        silent = ~masked.prosody.any(axis=1)
        assert 0 < silent.sum() <= 30
        assert not masked.views[:, silent].any()
        assert (~masked.views[0, ~silent].any(axis=0)).sum() <= 27
        assert training.mask_frames(inputs, 0, np.random.default_rng(1)).views.all()

    def test_a_batch_is_padded_with_its_labels(self):
        inputs = [
            EncoderInput(np.full((VIEWS, n, MELS), 2, "f4"), np.full((n, PROSODY), 3, "f4"))
            for n in (5, 17)
        ]
        clips = [EncoderExample("a", 4, 1), EncoderExample("a", UNKNOWN, UNKNOWN)]
        batch = make_batch(inputs, clips, [float(np.e), math.nan])
        assert batch.views.shape == (2, VIEWS, 24, MELS)
        assert batch.mask.sum(1).tolist() == [5, 17]
        assert batch.views.sum() == 2 * VIEWS * MELS * (5 + 17)
        assert not batch.prosody[0, 5:].any()
        assert batch.emotion.tolist() == [[0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]
        assert batch.gender.tolist() == [1, UNKNOWN]
        assert batch.pace.tolist() == pytest.approx([1.0, math.nan], nan_ok=True)

    def test_a_mixture_mixes_inputs_and_labels_alike(self):
        clips = [EncoderExample("a", 0, 1), EncoderExample("a", 1, 0), EncoderExample("a", 2, -1)]
        batch = make_batch([clip_of(n, n) for n in (8, 16, 24)], clips, [2.0] * 3)
        mixed = training.mix(batch, 0.3, np.random.default_rng(6))
        # The emotions, all different, say with whom and how much each clip was mixed.
        other = np.random.default_rng(6)
        share = max(drawn := other.beta(0.3, 0.3), 1 - drawn)
        for row, partner in enumerate(other.permutation(3).tolist()):
            expected = share * batch.views[row] + (1 - share) * batch.views[partner]
            torch.testing.assert_close(mixed.views[row], expected)
            assert mixed.emotion[row, partner] >= (1 - share) - 1e-6
            assert mixed.emotion[row].sum() == pytest.approx(1.0)
            assert mixed.mask[row].sum() == max(batch.mask[row].sum(), batch.mask[partner].sum())
            both = batch.gender[row] >= 0 and batch.gender[partner] >= 0
            blended = share * batch.gender[row] + (1 - share) * batch.gender[partner]
            assert mixed.gender[row] == pytest.approx(float(blended if both else batch.gender[row]))


class TestStoredFeatures:
    def test_they_come_back_and_are_measured_once(self, tmp_path):
        paths = [Path("12.wav"), Path("7.wav"), Path("30.wav")]
        store_features(tmp_path, paths, features_of)
        store = store_features(tmp_path, paths, lambda path: pytest.fail(f"measured {path}"))
        assert [store.frames(n) for n in range(len(store))] == [12, 7, 30]
        for number, path in enumerate(paths):
            expected, found = features_of(path), store[number]
            np.testing.assert_allclose(found.mel, expected.mel, rtol=1e-3, atol=1e-3)  # float16
            np.testing.assert_allclose(found.pitch_hz, expected.pitch_hz)
            np.testing.assert_allclose(found.strength, expected.strength)

    def test_other_files_or_another_order_are_measured_anew(self, tmp_path):
        store_features(tmp_path, [Path("12.wav"), Path("7.wav")], features_of)
        store = store_features(tmp_path, [Path("7.wav"), Path("12.wav")], features_of)
        assert [store.frames(n) for n in range(2)] == [7, 12]
        with pytest.raises(DataError, match="no clips"):
            store_features(tmp_path, [], features_of)


class TestLosses:
    def test_emotion_is_torchs_smoothed_cross_entropy_and_unlabelled_clips_add_nothing(self):
        torch.manual_seed(0)
        logits, named = torch.randn(6, 8), torch.randint(0, 8, (6,))
        target = functional.one_hot(named, 8).float()
        expected = functional.cross_entropy(logits, named, label_smoothing=0.1)
        torch.testing.assert_close(training.emotion_loss(logits, target, 0.1), expected)
        target[3:] = 0.0
        half = functional.cross_entropy(logits[:3], named[:3], label_smoothing=0.1) / 2
        torch.testing.assert_close(training.emotion_loss(logits, target, 0.1), half)

    def test_gender_is_the_mean_over_known_voices(self):
        logits = torch.tensor([0.0, 2.0, -1.0])
        loss = training.gender_loss(logits, torch.tensor([1.0, UNKNOWN, 0.0]))
        expected = (math.log(2) + math.log1p(math.exp(-1.0))) / 2
        assert float(loss) == pytest.approx(expected)
        assert float(training.gender_loss(logits, torch.full((3,), float(UNKNOWN)))) == 0.0

    def test_pace_leaves_out_what_could_not_be_measured_even_of_the_gradient(self):
        predicted = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
        loss = training.pace_loss(predicted, torch.tensor([1.5, math.nan, 1.0]))
        assert float(loss.detach()) == pytest.approx((0.5 + 1.0) / 2)
        loss.backward()
        assert predicted.grad.tolist() == [-0.5, 0.0, 0.5]

    def test_signal_by_hand_over_tokens_of_the_utterance(self):
        inputs = [clip_of(16, 1), clip_of(8, 2)]
        batch = make_batch(inputs, [EncoderExample("a", 0, 0)] * 2, [math.nan] * 2)
        with torch.no_grad():
            output = encoder()(batch.views, batch.prosody, batch.mask)
        errors = []
        for row, token in ((0, 0), (0, 1), (1, 0)):
            here = slice(8 * token, 8 * token + 8)
            parts = (inputs[row].views[0, here].mean(0), inputs[row].prosody[here].mean(0))
            difference = output.signal[row, token].numpy() - np.concatenate(parts)
            errors.append(np.mean(difference**2))
        found = float(training.signal_loss(output, batch))
        assert found == pytest.approx(float(np.mean(errors)), rel=1e-4)

    def test_the_loss_is_the_weighted_sum_of_its_parts(self, tmp_path):
        batch = make_batch([clip_of(24, 1)] * 2, [EncoderExample("a", 3, 1)] * 2, [3.0, 4.0])
        found = training.encoder_losses(encoder(), batch, settings_of(tmp_path))
        loss, *parts = (
            found[name].item()
            for name in ("loss", "emotion", "gender", "pace", "signal", "commitment")
        )
        assert loss == pytest.approx(np.dot(parts, [1.0, 0.3, 0.1, 0.5, 0.25]), rel=1e-5)

    def test_logits_are_adjusted_to_equal_priors(self):
        """By Bayes: at full weight, p(emotion | speech) over its share in training."""
        model = encoder().eval()
        shares = np.array([0.5, 0.02, 0.08, 0.1, 0.1, 0.1, 0.1, 0.0])
        inputs = [clip_of(64, seed) for seed in (1, 2)]
        batch = make_batch(inputs, [EncoderExample("", 0, 0)] * 2, [1.0] * 2)
        with torch.no_grad():
            before, after, same = (
                one(batch.views, batch.prosody, batch.mask).emotion.softmax(1)
                for one in (model, training.balanced(model, shares, 1.0), model)
            )
        expected = before / torch.from_numpy(np.where(shares > 0, shares, 1.0)).float()
        torch.testing.assert_close(after, expected / expected.sum(1, keepdim=True))
        torch.testing.assert_close(same, before)


def test_shares_are_of_sampled_clips_with_a_label():
    clips = [EncoderExample("a", emotion, 1) for emotion in (3, 3, 6, UNKNOWN)]
    corpus = training.EncoderCorpus(None, clips, np.array([0.1, 0.2, 0.1, 0.6]), [])
    assert corpus.emotion_shares == pytest.approx([0, 0, 0, 0.75, 0, 0, 0.25, 0])


def test_labels_come_from_the_corpus_or_else_from_the_caption():
    clip = Utterance("x", Path("x.wav"), corpus="made up", emotion="sad", gender="female",
                     captions=("Happy.",))  # fmt: skip
    captioned = replace(clip, emotion=None, gender="male")
    bare = replace(clip, emotion=None, gender=None, captions=())
    doubtful = replace(clip, corpus="ased", speaker="ased_50", gender="male")
    settings = settings_of(Path("unused"), shares={"made up": 1.0, "ased": 1.0})
    found, _, _ = training.label_clips([clip, captioned, bare, doubtful], settings)
    labels = [(6, 1), (4, 0), (UNKNOWN, UNKNOWN), (6, UNKNOWN)]
    assert [(one.emotion, one.gender) for one in found] == labels


def settings_of(folder: Path, **changes: object) -> training.EncoderSettings:
    plain = {
        "data": (folder / "manifest.jsonl",), "features": folder / "features",
        "shares": {"made up": 1.0}, "batch_size": 4, "model": SIZE, "quantize_after": 0,
        "evaluate_every": 2, "hold_out": ("s3",),
        "training": FitSettings(steps=3, learning_rate=1e-3, save_every=2, log_every=1),
    }  # fmt: skip
    return training.EncoderSettings(**{**plain, **changes})


def write_manifest(folder: Path, *, duration: float | None = 0.3) -> Path:
    """24 clips: a third is of a speaker that no model is trained on, a third of s3."""
    rows = [
        {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "made up", "duration": duration,
         "gender": ("female", "male")[n % 2], "speaker": ("s0", "s3", "ravdess_05")[n % 3],
         "emotion": ("sad", "happy", "angry", "neutral")[n % 4]}
        for n in range(24)
    ]  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> training.EncoderSettings:
    """Of a manifest of clips whose features are made up."""
    monkeypatch.setattr(training, "measure_file", features_of)
    write_manifest(tmp_path)
    return settings_of(tmp_path)


def test_a_resumed_run_ends_as_an_uninterrupted_one(settings, tmp_path, monkeypatch):
    # Exporting takes longer than all else here; `test_builtin` does it.
    monkeypatch.setattr("aligncap.tokenizers.encoder.export_encoder", lambda *_: None)
    longer = replace(settings, training=replace(settings.training, schedule="constant"))
    shorter = replace(settings, training=replace(longer.training, steps=2))
    training.train_encoder(shorter, tmp_path / "parts", resume=False)
    training.train_encoder(longer, tmp_path / "parts", resume=True)
    scores = training.train_encoder(longer, tmp_path / "once", resume=False)
    assert set(scores) == {"recall_made up", "gender_made up"}
    (parts, weights), (once, same_weights) = (
        (
            [line["loss"] for line in read_log(tmp_path / name) if "loss" in line],
            (tmp_path / name / "encoder/model.safetensors").read_bytes(),
        )
        for name in ("parts", "once")
    )
    assert parts == once
    assert len(once) == 3
    assert weights == same_weights


def plan_of(settings: training.EncoderSettings) -> dict:
    return json.loads(json.dumps(training.plan(settings, Path("unused"))))


def test_a_run_is_what_was_planned_and_no_validation_speaker_is_in_it(settings, tmp_path):
    found = plan_of(settings)
    assert found["loads"][0]["present"]
    assert found["notes"][0] == "8 clips to train on, 8 held out"
    assert found["parameters"]["trained"] == sum(
        p.numel() for p in SpeechEncoder(SIZE).parameters()
    )
    memory = found["memory_bytes"]
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")

    corpus = training.prepare(settings)
    assert len(corpus.clips) == len(corpus.store) == 16
    assert corpus.weights.sum() == pytest.approx(1.0)
    assert corpus.held_out == np.flatnonzero(corpus.weights == 0).tolist() == [*range(1, 16, 2)]
    frames = sum(corpus.store.frames(n) for n in range(16))
    assert frames == pytest.approx(480, rel=0.15)
    stored = sum((tmp_path / f"features/{name}.npy").stat().st_size for name in ("mel", "pitch"))
    assert found["disk_bytes"]["features"] / 480 * frames == pytest.approx(stored - 256)


def test_a_missing_manifest_is_named_and_one_that_does_not_fit_refused(tmp_path):
    settings = settings_of(tmp_path)
    found = plan_of(settings)
    assert found["loads"][0]["cure"] == "make it with aligncap corpus (docs/corpora.md)"
    assert found["disk_bytes"]["features"] is None
    assert "not here" in found["notes"][0]
    write_manifest(tmp_path, duration=None)
    assert plan_of(settings)["disk_bytes"]["features"] is None
    with pytest.raises(DataError, match="corpus 'made up' has no share"):
        plan_of(replace(settings, shares={"another": 1.0}))
    with pytest.raises(DataError, match="no clip is left"):
        plan_of(replace(settings, hold_out=("s0", "s3")))
