"""Training of the built-in encoder: losses, augmentation, batches, dry run and short runs."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from aligncap.data.manifest import Utterance, read_manifest, trusted_gender
from aligncap.data.splits import VALIDATION_SPEAKERS, is_validation
from aligncap.errors import DataError
from aligncap.prosody.measurement import MELS, log_mel
from aligncap.tokenizers import encoder_training
from aligncap.tokenizers.builtin import PROSODY, VIEWS, EncoderInput, Features
from aligncap.tokenizers.cache import FeatureStore, store_features
from aligncap.tokenizers.encoder import SpeechEncoder
from aligncap.tokenizers.encoder_training import (
    UNKNOWN,
    Augmentation,
    EncoderBatches,
    EncoderCorpus,
    EncoderExample,
    EncoderSettings,
    balanced,
    crop,
    emotion_loss,
    encoder_losses,
    gender_loss,
    label_clips,
    make_batch,
    mask_frames,
    mix,
    pace_loss,
    plan,
    prepare,
    sampling_weights,
    shift_voice,
    signal_loss,
    train_encoder,
    vary,
)
from aligncap.training import checkpoints
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from aligncap.values import RATE_HZ, Waveform
from speech_tokenizers.test_encoder import SIZE, clip_of, encoder

CORPORA = ("ravdess", "nemo", "emodb", "ased", "secap")
STILL = Augmentation(voice=0.0, pace=0.0, channel=0.0, level=0.0, noise=0.0, cut=0.0)


def features_of(path: Path) -> Features:
    """Random features by the name, which may say how many frames there are."""
    seed = int(path.stem) if path.stem.isdigit() else sum(path.stem.encode())
    random = np.random.default_rng(seed)
    frames = seed if path.stem.isdigit() else int(random.integers(20, 40))
    mel = random.normal(-4, 1, (frames, MELS)).astype(np.float32)
    return Features(mel, np.full(frames, 200, np.float32), np.full(frames, 0.5, np.float32))


FEATURES = features_of(Path("150.wav"))


def harmonics(hz: float) -> Waveform:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * hz * n * time_s) / n for n in range(1, 8))
    return Waveform((0.1 * sound).astype(np.float32))


def test_switched_off_it_gives_the_same_back():
    features = FEATURES
    varied = vary(features, STILL, np.random.default_rng(0))
    np.testing.assert_allclose(varied.features.mel, features.mel, atol=1e-5)
    assert (varied.voice_ratio, varied.pace_ratio, varied.level_nats) == (1.0, 1.0, 0.0)


def test_the_same_seed_gives_the_same_copy():
    one, other = (vary(FEATURES, Augmentation(), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.features.mel, other.features.mel)


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_a_shifted_voice_has_the_spectrum_of_a_sound_played_at_that_frequency(ratio):
    shifted = shift_voice(log_mel(harmonics(400.0)), ratio)[50]
    real, same = log_mel(harmonics(400.0 * ratio))[50], log_mel(harmonics(400.0))[50]
    band = slice(4, 52)  # the lowest partial to the highest
    assert abs(int(shifted[band].argmax()) - int(real[band].argmax())) <= 1
    assert np.corrcoef(shifted[band], real[band])[0, 1] > 0.6
    assert np.corrcoef(same[band], real[band])[0, 1] < 0.4


def test_pitch_duration_and_pace_are_those_reported():
    settings = Augmentation(channel=0.0, level=0.0, noise=0.0, cut=0.0)
    for seed in range(20):
        varied = vary(FEATURES, settings, np.random.default_rng(seed))
        assert varied.features.pitch_hz[0] == pytest.approx(200 * varied.voice_ratio, rel=1e-5)
        assert len(varied.features) == pytest.approx(150 / varied.pace_ratio, abs=0.51)


def test_the_level_moves_as_reported():
    settings = Augmentation(voice=0.0, pace=0.0, channel=0.0, noise=0.0, cut=0.0)
    varied = vary(FEATURES, settings, np.random.default_rng(5))
    moved = varied.features.mel - FEATURES.mel
    np.testing.assert_allclose(moved, varied.level_nats, atol=1e-5)


def test_noise_only_adds():
    settings = Augmentation(voice=0.0, pace=0.0, channel=0.0, level=0.0, noise=1.0, cut=0.0)
    varied = vary(FEATURES, settings, np.random.default_rng(2))
    assert (varied.features.mel >= FEATURES.mel - 1e-5).all()


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


def test_the_same_number_gives_the_same_batch_and_another_number_another(store):
    varied = {"augmentation": Augmentation(), "mixup": 0.3, "masks": 2}
    one, other = batches_of(store, **varied), batches_of(store, **varied)
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


def test_clips_of_weight_zero_are_never_sampled(store):
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


def test_long_clips_are_cut_to_a_part_of_themselves():
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


def test_masking_is_of_a_copy_and_masks_time_in_both_streams():
    inputs = EncoderInput(np.ones((VIEWS, 50, MELS), np.float32), np.ones((50, PROSODY), "f4"))
    masked = mask_frames(inputs, 3, np.random.default_rng(1))
    assert inputs.views.all()
    assert inputs.prosody.all()
    silent = ~masked.prosody.any(axis=1)
    assert 0 < silent.sum() <= 30
    assert not masked.views[:, silent].any()
    assert (~masked.views[0, ~silent].any(axis=0)).sum() <= 27
    assert mask_frames(inputs, 0, np.random.default_rng(1)).views.all()


def test_a_batch_is_padded_with_its_labels():
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
    random = np.random.default_rng(2)
    inputs = [
        EncoderInput(random.random((VIEWS, n, MELS), "f4"), random.random((n, PROSODY), "f4"))
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
    partners = other.permutation(3).tolist()
    assert share >= 0.5
    for row, partner in enumerate(partners):
        expected = share * batch.views[row] + (1 - share) * batch.views[partner]
        torch.testing.assert_close(mixed.views[row], expected)
        assert mixed.emotion[row, partner] >= (1 - share) - 1e-6
        assert mixed.emotion[row].sum() == pytest.approx(1.0)
        assert mixed.mask[row].sum() == max(batch.mask[row].sum(), batch.mask[partner].sum())
        both = batch.gender[row] >= 0 and batch.gender[partner] >= 0
        blended = share * batch.gender[row] + (1 - share) * batch.gender[partner]
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


def test_emotion_loss_is_torchs_smoothed_cross_entropy():
    torch.manual_seed(0)
    logits, named = torch.randn(6, 8), torch.randint(0, 8, (6,))
    target = functional.one_hot(named, 8).float()
    expected = functional.cross_entropy(logits, named, label_smoothing=0.1)
    torch.testing.assert_close(emotion_loss(logits, target, 0.1), expected)


def test_logits_are_adjusted_to_equal_priors():
    """By Bayes: at full weight, p(emotion | speech) over its share in training."""
    model = encoder().eval()
    shares = np.array([0.5, 0.02, 0.08, 0.1, 0.1, 0.1, 0.1, 0.0])
    inputs = [clip_of(64, seed) for seed in (1, 2)]
    batch = make_batch(inputs, [EncoderExample("", 0, 0)] * 2, [1.0] * 2)
    with torch.no_grad():
        before = model(batch.views, batch.prosody, batch.mask).emotion.softmax(1)
        after = balanced(model, shares, 1.0)(batch.views, batch.prosody, batch.mask).emotion
        same = model(batch.views, batch.prosody, batch.mask).emotion.softmax(1)
    expected = before / torch.tensor([0.5, 0.02, 0.08, 0.1, 0.1, 0.1, 0.1, 1.0])
    torch.testing.assert_close(after.softmax(1), expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(same, before)


def test_shares_are_of_sampled_clips_with_a_label():
    clips = [
        EncoderExample("a", 3, 1),
        EncoderExample("a", 3, 1),
        EncoderExample("b", 6, 0),
        EncoderExample("b", UNKNOWN, 0),
    ]
    corpus = EncoderCorpus(None, clips, np.array([0.1, 0.2, 0.1, 0.6]), [])
    assert corpus.emotion_shares == pytest.approx([0, 0, 0, 0.75, 0, 0, 0.25, 0])


def test_a_clip_without_an_emotion_adds_nothing():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 8), torch.eye(8)[:4]
    target[2:] = 0.0
    both = emotion_loss(logits, target, 0.1)
    torch.testing.assert_close(both, emotion_loss(logits[:2], target[:2], 0.1) / 2)


def test_gender_loss_is_the_mean_over_known_voices():
    logits = torch.tensor([0.0, 2.0, -1.0])
    loss = gender_loss(logits, torch.tensor([1.0, UNKNOWN, 0.0]))
    expected = (math.log(2) + math.log1p(math.exp(-1.0))) / 2
    assert float(loss) == pytest.approx(expected)
    assert float(gender_loss(logits, torch.full((3,), float(UNKNOWN)))) == 0.0


def test_pace_loss_leaves_out_what_could_not_be_measured_even_of_the_gradient():
    predicted = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
    loss = pace_loss(predicted, torch.tensor([1.5, float("nan"), 1.0]))
    assert float(loss.detach()) == pytest.approx((0.5 + 1.0) / 2)
    loss.backward()
    assert predicted.grad.tolist() == [-0.5, 0.0, 0.5]


def test_signal_loss_by_hand_over_tokens_of_the_utterance():
    inputs = [clip_of(16, 1), clip_of(8, 2)]
    batch = make_batch(inputs, [EncoderExample("a", 0, 0)] * 2, [math.nan] * 2)
    with torch.no_grad():
        output = encoder()(batch.views, batch.prosody, batch.mask)
    errors = []
    for row, token in ((0, 0), (0, 1), (1, 0)):
        here = slice(8 * token, 8 * token + 8)
        mean = np.concatenate(
            (inputs[row].views[0, here].mean(0), inputs[row].prosody[here].mean(0))
        )
        errors.append(np.mean((output.signal[row, token].numpy() - mean) ** 2))
    assert float(signal_loss(output, batch)) == pytest.approx(float(np.mean(errors)), rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_parts(tmp_path):
    settings = settings_of(tmp_path, [])
    batch = make_batch([clip_of(24, 1)] * 2, [EncoderExample("a", 3, 1)] * 2, [3.0, 4.0])
    parts = {k: v.item() for k, v in encoder_losses(encoder(), batch, settings).items()}
    total = (
        parts["emotion"] + 0.3 * parts["gender"] + 0.1 * parts["pace"] + 0.5 * parts["signal"]
        + 0.25 * parts["commitment"]
    )  # fmt: skip
    assert parts["loss"] == pytest.approx(total, rel=1e-5)


def test_labels_come_from_the_corpus_or_else_from_the_caption():
    clip = Utterance("x", Path("x.wav"), corpus="made up", emotion="sad", gender="female",
                     captions=("Happy.",))  # fmt: skip
    captioned = replace(clip, emotion=None, gender="male")
    bare = replace(clip, emotion=None, gender=None, captions=())
    found, _, _ = label_clips([clip, captioned, bare], settings_of(Path("unused"), []))
    assert [(one.emotion, one.gender) for one in found] == [(6, 1), (4, 0), (UNKNOWN, UNKNOWN)]


@pytest.mark.parametrize(("speaker", "trusted"), [("ased_49", "male"), ("ased_50", None)])
def test_doubtful_genders_are_left_out(speaker, trusted):
    clip = Utterance("x", Path("x.wav"), corpus="ased", speaker=speaker, gender="male")
    assert trusted_gender(clip) == trusted
    assert trusted_gender(replace(clip, corpus="emodb")) == "male"


def settings_of(folder: Path, data: list[Path], **changes: object) -> EncoderSettings:
    plain = {
        "data": tuple(data) or (folder / "manifest.jsonl",), "features": folder / "features",
        "shares": {"made up": 1.0}, "batch_size": 4, "model": SIZE, "quantize_after": 0,
        "evaluate_every": 2, "hold_out": ("s3",),
        "training": FitSettings(steps=3, learning_rate=1e-3, save_every=2, log_every=1),
    }  # fmt: skip
    return EncoderSettings(**{**plain, **changes})


def test_no_validation_speaker_is_trained_on(speech_data, tmp_path, monkeypatch):
    manifests = [speech_data / name / "manifest.jsonl" for name in CORPORA]
    measured: list[Path] = []

    def note(path: Path) -> Features:
        measured.append(path)
        nothing = np.zeros(1, np.float32)
        return Features(np.zeros((1, MELS), np.float32), nothing, nothing)

    monkeypatch.setattr(encoder_training, "measure_file", note)
    settings = settings_of(
        tmp_path, manifests, shares=dict.fromkeys(CORPORA, 1.0), hold_out=("ravdess_06",)
    )
    corpus = prepare(settings)
    everyone = {one.path: one for path in manifests for one in read_manifest(path)}
    trained_on = [everyone[path] for path in measured]
    assert not VALIDATION_SPEAKERS & {one.speaker for one in trained_on}
    assert not any(is_validation(one) for one in trained_on)
    assert {one.corpus for one in trained_on} == set(CORPORA)
    assert corpus.weights.sum() == pytest.approx(1.0)
    held_out = [n for n, one in enumerate(trained_on) if one.speaker == "ravdess_06"]
    assert list(corpus.held_out) == held_out
    assert np.flatnonzero(corpus.weights == 0).tolist() == held_out != []


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest of clips whose features are made up."""
    monkeypatch.setattr(encoder_training, "measure_file", features_of)
    # Exporting takes longer than all else here; `test_builtin` does it.
    monkeypatch.setattr("aligncap.tokenizers.encoder.export_encoder", lambda *_: None)
    rows = [
        {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "made up", "speaker": f"s{n % 4}",
         "gender": ("female", "male")[n % 2], "emotion": ("sad", "happy", "angry")[n % 3]}
        for n in range(24)
    ]  # fmt: skip
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_resumed_run_ends_as_an_uninterrupted_one(corpus):
    settings = settings_of(corpus, [])
    whole = train_encoder(settings, corpus / "whole", resume=False)
    assert set(whole) == {"recall_made up", "gender_made up"}
    shorter = replace(settings, training=replace(settings.training, steps=2, schedule="constant"))
    longer = replace(settings, training=replace(settings.training, schedule="constant"))
    train_encoder(shorter, corpus / "parts", resume=False)
    train_encoder(longer, corpus / "parts", resume=True)
    train_encoder(longer, corpus / "once", resume=False)
    parts, once = (
        [line["loss"] for line in read_log(corpus / name) if "loss" in line]
        for name in ("parts", "once")
    )
    assert parts == pytest.approx(once, abs=0)
    assert len(once) == 3
    weights = [
        (corpus / name / "encoder/model.safetensors").read_bytes() for name in ("parts", "once")
    ]
    assert weights[0] == weights[1]


def plan_of(settings: EncoderSettings) -> dict:
    found = dict(plan(settings, Path("unused")))
    json.dumps(found)
    return found


def write_manifest(folder: Path, *, duration: float | None = 0.3) -> Path:
    rows = [
        {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "made up", "emotion": "sad",
         "speaker": ("s0", "s3", "ravdess_05")[n % 3], "duration": duration}
        for n in range(24)
    ]  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_counts_are_those_of_a_run(tmp_path, monkeypatch):
    settings = settings_of(tmp_path, [write_manifest(tmp_path)])
    found = plan_of(settings)
    assert found["loads"][0]["present"]
    # A third is of a speaker that no model is trained on, a third is held out.
    assert found["notes"][0] == "8 clips to train on, 8 held out"

    model = SpeechEncoder(SIZE)
    parameters = list(model.parameters())
    assert found["parameters"]["trained"] == sum(p.numel() for p in parameters)
    memory = found["memory_bytes"]
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = checkpoints.make_optimizer(model, FitSettings(steps=1, learning_rate=1e-3))
    optimizer.step()
    moments = [v for state in optimizer.state.values() for v in state.values() if v.ndim]
    assert memory["optimizer"] == sum(v.nbytes for v in moments)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    files = {
        "weights": checkpoints.kept_weights(model),
        "optimizer": checkpoints.moments_of(model, optimizer),
        "average": weights,
    }
    kept = {name: checkpoints.gather(tensors, keep=True) for name, tensors in files.items()}
    folder = checkpoints.save_checkpoint(tmp_path, 1, files=kept, state={})
    written = sum(file.stat().st_size for file in folder.iterdir())
    assert found["disk_bytes"]["checkpoints"] == pytest.approx(3 * written, rel=0.15)

    monkeypatch.setattr(encoder_training, "measure_file", features_of)
    corpus = encoder_training.prepare(settings)
    frames = sum(corpus.store.frames(n) for n in range(len(corpus.store)))
    assert frames == pytest.approx(480, rel=0.15)
    stored = sum(
        (tmp_path / "features" / f"{name}.npy").stat().st_size for name in ("mel", "pitch")
    )
    assert found["disk_bytes"]["features"] / 480 * frames == pytest.approx(stored - 256)


def test_a_missing_manifest_is_named_and_one_that_does_not_fit_refused(tmp_path):
    settings = settings_of(tmp_path, [tmp_path / "absent.jsonl"])
    found = plan_of(settings)
    assert found["loads"][0]["cure"] == "make it with aligncap corpus (docs/corpora.md)"
    assert found["disk_bytes"]["features"] is None
    assert "not here" in found["notes"][0]
    manifest = write_manifest(tmp_path, duration=None)
    assert plan_of(settings_of(tmp_path, [manifest]))["disk_bytes"]["features"] is None
    with pytest.raises(DataError, match="corpus 'made up' has no share"):
        plan_of(replace(settings_of(tmp_path, [manifest]), shares={"another": 1.0}))
    with pytest.raises(DataError, match="no clip is left"):
        plan_of(replace(settings_of(tmp_path, [manifest]), hold_out=("s0", "s3")))
