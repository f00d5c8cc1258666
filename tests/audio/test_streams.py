"""What `stream` gives block by block is what `load` gives of the same file at once."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from aligncap.audio import load
from aligncap.audio.files import read_header
from aligncap.audio.streams import channel_count, stream
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ
from support.signals import tone


def streamed(file: Path, channel: int | None = None) -> np.ndarray:
    return np.concatenate(list(stream(file, channel=channel)))


def written(file: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    soundfile.write(file, samples, rate_hz, subtype="FLOAT")
    return file


def differ(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


def at(rate_hz: int, clip: np.ndarray) -> np.ndarray:
    return soxr.resample(clip, RATE_HZ, rate_hz)


@pytest.fixture(scope="module")
def clips(example_clips) -> tuple[np.ndarray, np.ndarray]:
    """A man's and a woman's words, 3 s each."""
    man, woman = (load(example_clips[number]).samples for number in (0, 4))
    return man[: 3 * RATE_HZ], woman[: 3 * RATE_HZ]


def test_a_container_that_is_not_loaded_is_not_streamed(tmp_path):
    file = tmp_path / "clip.voc"
    soundfile.write(file, tone(440, length_s=1), RATE_HZ, format="VOC", subtype="PCM_16")
    with pytest.raises(AudioError, match="not read here") as refused:
        load(file)
    for read in (streamed, channel_count, read_header):
        with pytest.raises(AudioError) as caught:
            read(file)
        assert str(caught.value) == str(refused.value)


def test_parts_of_joined_files_are_read_each_by_its_own_rate_and_channels(tmp_path, clips):
    man, woman = clips
    both = np.stack([at(44_100, woman), -at(44_100, woman)], axis=1)
    files = [
        written(tmp_path / "mono.wav", man),
        written(tmp_path / "stereo.wav", both, 44_100),
        written(tmp_path / "slow.wav", at(8_000, man), 8_000),
    ]
    joined = tmp_path / "joined.wav"
    joined.write_bytes(b"".join(file.read_bytes() for file in files))
    expected = load(joined).samples
    assert len(expected) == pytest.approx(2 * len(man) + len(woman), abs=4)
    assert differ(streamed(joined), expected) < 1e-6
    assert channel_count(joined) == 2
    second = streamed(joined, channel=1)
    assert len(second) == len(expected)
    middle = slice(len(man), len(man) + len(woman))
    assert differ(second[middle], -expected[middle]) < 1e-6
    assert not second[: len(man)].any()  # which has no second channel
    assert not second[len(man) + len(woman) + 1 :].any()


def test_a_channel_that_is_silent_at_first_is_heard(tmp_path, clips):
    man, woman = clips
    late = 660 * RATE_HZ  # beyond forty blocks of libsndfile
    sound = np.zeros((late + len(woman), 2), np.float32)
    sound[: len(man), 0], sound[late:, 1] = man, woman
    heard = streamed(written(tmp_path / "call.wav", sound))
    assert differ(heard[: len(man)], man) < 1e-6
    assert differ(heard[late:], woman) < 1e-6


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
class TestLevels:
    """What `load` does to sound that is too loud or not around zero."""

    def file_of(self, folder: Path, sound: np.ndarray, rate_hz: int, channels: int) -> Path:
        many = np.repeat(at(rate_hz, sound.astype(np.float32))[:, None], channels, axis=1)
        return written(folder / "clip.wav", many, rate_hz)

    def test_beyond_full_scale_it_is_scaled_and_told_once(
        self, tmp_path, clips, rate_hz, channels, caplog
    ):
        loud = np.concatenate(clips * 4)  # more than a block
        file = self.file_of(tmp_path, 2 * loud / np.abs(loud).max(), rate_hz, channels)
        expected = load(file).samples
        [told] = caplog.messages
        caplog.clear()
        assert differ(streamed(file), expected) < 1e-5
        assert caplog.messages == [told]
        assert "are scaled to full scale" in told

    @pytest.mark.parametrize("hertz", [0, 0.5])
    def test_an_offset_or_a_drift_is_removed(self, tmp_path, clips, rate_hz, channels, hertz):
        soft = 0.05 * np.concatenate(clips * 4)
        below = 0.4 * np.cos(2 * np.pi * hertz * np.arange(len(soft)) / RATE_HZ)
        file = self.file_of(tmp_path, soft + below, rate_hz, channels)
        expected, heard = load(file).samples, streamed(file)
        assert abs(float(expected.mean())) < 1e-3
        inner = slice(RATE_HZ // 4, -RATE_HZ // 4)  # the resampler rings where an offset begins
        assert differ(heard[inner], expected[inner]) < 2e-4
        assert differ(streamed(file, channel=channels - 1), heard) < 1e-5


def test_a_damaged_file_is_read_up_to_where_it_is_damaged(tmp_path):
    sound = np.concatenate([tone(440, length_s=20), [np.nan]])
    found = stream(written(tmp_path / "clip.wav", sound))
    first = next(found)
    assert differ(first, sound[: len(first)]) < 1e-6
    assert len(first) > 10 * RATE_HZ
    with pytest.raises(AudioError, match="1 samples are NaN"):
        next(found)


def test_media_are_streamed_as_they_are_loaded(tmp_path, clips):
    av = pytest.importorskip("av", reason="needs the media extra")
    man, woman = clips
    late = 210 * RATE_HZ  # beyond forty blocks of PyAV
    sound = np.zeros((late + len(woman), 2), np.float32)
    sound[: len(man), 0], sound[late:, 1] = man, woman
    with av.open(str(tmp_path / "call.mkv"), "w") as container:
        track = container.add_stream("pcm_f32le", rate=RATE_HZ, layout="stereo")
        for block in np.split(sound, range(RATE_HZ, len(sound), RATE_HZ)):
            frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="flt", layout="stereo")
            frame.sample_rate = RATE_HZ
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    heard = streamed(tmp_path / "call.mkv")
    assert differ(heard, sound.sum(axis=1)) < 1e-6
