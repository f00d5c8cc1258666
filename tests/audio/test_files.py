"""Sound becomes waveforms whatever its form; what cannot be read is refused in one line."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from aligncap.audio import from_array, level_db, load, load_bytes
from aligncap.audio.files import read_at
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ
from support.signals import noise, tone

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_24"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
}
TONE = tone(440, length_s=1)


@pytest.fixture
def write(tmp_path: Path):
    """Writes sound into a file and returns its path."""

    def write(samples, *, name="clip.wav", rate_hz=RATE_HZ, kind=("WAV", "PCM_16")) -> Path:
        soundfile.write(tmp_path / name, samples, rate_hz, format=kind[0], subtype=kind[1])
        return tmp_path / name

    return write


def sine(hertz: float, *, rate_hz: int, length_s: float = 1.0, peak: float = 0.5):
    return peak * np.sin(2 * np.pi * hertz * np.arange(length_s * rate_hz) / rate_hz)


def refusal(path) -> str:
    """The message that a file is refused with: one line that begins with the file's name."""
    with pytest.raises(AudioError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    return message


class TestReading:
    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_of_libsndfile(self, write, name):
        file = write(TONE, name=f"clip.{name}", kind=FORMATS[name])
        heard = load(file)
        assert heard.duration_s == pytest.approx(1.0, abs=0.1)  # mp3 adds a frame of its own
        assert level_db(heard) == pytest.approx(20 * np.log10(0.3) - 3.01, abs=0.6)
        assert heard.source == str(file)

    @pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
    @pytest.mark.parametrize("channels", [1, 2, 6])
    def test_any_rate_and_channel_count_becomes_mono_at_16_khz(self, write, rate_hz, channels):
        sound, expected = (sine(500, rate_hz=rate, peak=0.4) for rate in (rate_hz, RATE_HZ))
        many = np.repeat(sound[:, None], channels, axis=1)
        middle = slice(1_000, 15_000)  # away from the resampler's edges
        for heard in (
            load(write(many, rate_hz=rate_hz, kind=("WAV", "PCM_24"))),
            from_array(many, rate_hz),
        ):
            assert len(heard.samples) == pytest.approx(RATE_HZ, abs=2)
            assert np.abs(heard.samples[middle] - expected[middle]).max() < 2e-3

    def test_what_lies_above_half_the_rate_does_not_fold_back(self, write):
        file = write(sine(11_000, rate_hz=48_000), rate_hz=48_000)
        assert level_db(load(file)) < -60

    def test_long_files_are_joined_without_a_seam(self, write):
        sound = sine(300, rate_hz=48_000, length_s=20)  # several of the stretches it is read in
        heard = load(write(sound, rate_hz=48_000)).samples
        expected = sine(300, rate_hz=RATE_HZ, length_s=20)
        assert np.abs(heard - expected)[500:-500].max() < 2e-3

    @pytest.mark.parametrize(("name", "rate_hz"), [("wav", 44_100), ("flac", 48_000)])
    @pytest.mark.parametrize("span_s", [(0, 3), (10.3, 14.7), (17, 20)])
    def test_a_part_at_another_rate_is_that_of_the_whole(self, write, name, rate_hz, span_s):
        rng = np.random.default_rng(0)
        both = np.repeat(0.1 * rng.standard_normal((20 * rate_hz, 1)), 2, axis=1)
        file = write(both, name=f"clip.{name}", rate_hz=rate_hz, kind=FORMATS[name])
        whole = soxr.resample(soundfile.read(file)[0].mean(axis=1), rate_hz, 32_000)
        start, end = (round(time * RATE_HZ) for time in span_s)
        part = load(file).part(start, end)
        found = part.at_rate(32_000, 0, len(part.samples))
        assert np.abs(found - whole[2 * start : 2 * end]).max() < 1e-4
        inner = part.part(800, RATE_HZ).at_rate(32_000, 400, 99 * RATE_HZ)
        assert np.array_equal(inner, found[2_400 : 2 * RATE_HZ])

    def test_of_what_lies_behind_a_part_nothing_is_read(self, write):
        sound = np.concatenate([np.repeat(TONE, 30), [np.nan]])  # 30 s
        file = write(sound, kind=("WAV", "FLOAT"))
        mixes = [np.ones(1, np.float32)]
        assert len(read_at(file, mixes, 32_000, 0, 10 * RATE_HZ)) == 320_000
        with pytest.raises(AudioError, match="1 samples are NaN"):
            read_at(file, mixes, 32_000, 29 * RATE_HZ, 30 * RATE_HZ)

    @pytest.mark.parametrize("channels", ["inverted", "a speaker each", "one of noise", "of three"])
    @pytest.mark.parametrize("parts", [1, 2])
    def test_at_another_rate_the_same_channels_are_heard(
        self, write, example_clips, channels, parts
    ):
        man, woman = (load(example_clips[number]).samples[: 2 * RATE_HZ] for number in (0, 4))
        silence, hiss = np.zeros_like(man), 0.01 * noise(3)[: len(man)]
        turns = [np.concatenate((man, silence)), np.concatenate((silence, woman))]
        sounds = {
            "inverted": [man, -man],
            "a speaker each": turns,
            "one of noise": [man, hiss],
            "of three": [turns[0], 0.5 * (turns[0] + turns[1]), turns[1]],
        }[channels]
        many = soxr.resample(np.stack(sounds, axis=1), RATE_HZ, 48_000)
        whole = write(many, rate_hz=48_000, kind=("WAV", "FLOAT"))
        whole.write_bytes(whole.read_bytes() * parts)
        heard = load(whole)
        again = heard.at_rate(32_000, 0, len(heard.samples))
        brought_down = soxr.resample(again, 32_000, RATE_HZ)
        assert np.sqrt(np.mean(heard.samples**2)) > 0.01
        edges = np.abs(np.arange(len(brought_down)) % (len(brought_down) // parts) - 400) > 400
        assert np.abs(brought_down - heard.samples)[edges].max() < 2e-3

    def test_eight_bits_are_read_around_their_middle(self, write):
        assert np.abs(load(write(TONE, kind=("WAV", "PCM_U8"))).samples - TONE).max() < 0.02

    def test_float_samples_beyond_full_scale_are_clipped(self, write):
        assert np.abs(load(write(10 * TONE, kind=("WAV", "FLOAT"))).samples).max() == 1.0

    def test_one_sample_and_a_file_of_another_name(self, write, tmp_path):
        assert len(load(write(np.array([0.5]))).samples) == 1
        renamed = write(TONE, name="clip.flac", kind=FORMATS["flac"]).rename(tmp_path / "clip.m4a")
        assert load(renamed).duration_s == 1.0

    def test_a_wav_written_to_a_pipe_is_read_to_its_end(self, write):
        file = with_sizes(write(TONE), 0xFFFFFFFF)
        assert load(file).duration_s == pytest.approx(1.0, abs=0.01)


def with_sizes(file: Path, size: int) -> Path:
    """A wav file whose header says this of its size: a pipe cannot be rewound to fill it in."""
    whole = bytearray(file.read_bytes())
    whole[4:8] = whole[40:44] = struct.pack("<I", size)
    file.write_bytes(whole)
    return file


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.wav", b"", "is empty"),
        ("note.wav", b"Dear listener,\nthis is a letter.\n", "is text"),
        ("brief.wav", "你好，世界".encode() * 40, "is text"),
        ("paper.wav", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        ("sheet.wav", b"PK\x03\x04" + bytes(100), "zip"),
        ("photo.mp3", b"\x89PNG\r\n\x1a\n" + bytes(100), "picture"),
        ("talk.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(99), "ffmpeg -i talk.m4a talk.wav"),
        ("film.wav", b"\0\0\0\x20ftypisom\0\0\0\0" + bytes(99), "ffmpeg -i film.wav"),
        ("talk.webm", b"\x1a\x45\xdf\xa3" + bytes(100), "ffmpeg -i talk.webm talk.wav"),
        ("talk.aac", b"\xff\xf1\x50\x80" + bytes(100), "ffmpeg -i talk.aac talk.wav"),
        ("talk.wma", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(100), "ffmpeg"),
        ("clip.raw", bytes(range(256)) * 10, "ffmpeg -f s16le"),
        ("junk.wav", bytes(range(255, 0, -1)) * 10, "no sound"),
        ("pointer.flac", b"version https://git-lfs.github.com/spec/v1\noid 0\n", "git lfs pull"),
        ("header.wav", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", "export it again"),
    ],
)
def test_what_is_no_readable_sound_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path, write):
    os.mkfifo(tmp_path / "pipe.wav")  # without waiting for it
    assert "no regular file" in refusal(tmp_path / "pipe.wav")
    assert "does not exist" in refusal(tmp_path / "none.wav")
    assert "is a folder" in refusal(tmp_path)
    for name in ("a\0b.wav", "x" * 300 + ".wav"):
        with pytest.raises(AudioError, match="cannot be opened"):
            load(tmp_path / name)
    locked = write(TONE)
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # some users read every file, whatever its permissions
        assert "permissions" in refusal(locked)


@pytest.mark.parametrize("name", ["wav", "flac", "aiff", "mp3", "caf"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_file_cut_short_is_refused(write, name, share):
    file = write(0.1 * noise(3), name=f"clip.{name}", kind=FORMATS[name])
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert "cut short" in refusal(file)


def test_a_wav_whose_recorder_crashed_is_refused_with_a_cure(write):
    message = refusal(with_sizes(write(TONE), 0))
    assert "header was never finished" in message
    assert "ffmpeg -i clip.wav" in message


def test_samples_that_are_none_or_no_numbers_are_refused(write):
    assert "no samples" in refusal(write(np.zeros(0)))
    for value in (np.nan, np.inf):
        sound = np.concatenate([TONE, [value] * 3])
        assert "3 samples are NaN" in refusal(write(sound, kind=("WAV", "FLOAT")))


def test_hours_are_refused_before_they_are_read(write):
    # An hour and ten seconds at the lowest rate, whose bytes are a hole in the file.
    file = write(np.zeros(1000), rate_hz=1000, kind=("WAV", "PCM_U8"))
    header = bytearray(file.read_bytes()[:44])
    count = 3610 * 1000
    header[4:8], header[40:44] = struct.pack("<I", 36 + count), struct.pack("<I", count)
    with file.open("wb") as opened:
        opened.write(header)
        opened.truncate(44 + count)
    assert "longer than 60 minutes" in refusal(file)


class TestArrays:
    def test_samples_at_16_khz_stay_what_they_are_and_the_array_is_left_alone(self):
        sound = TONE.astype(np.float32)
        assert np.array_equal(from_array(sound, RATE_HZ).samples, sound)
        beyond = 0.5 * noise(1)  # some of it beyond full scale
        before = beyond.copy()
        from_array(beyond, RATE_HZ)
        assert np.array_equal(beyond, before)

    def test_channels_that_hold_the_same_are_averaged(self):
        left, right = (TONE + 0.02 * noise(1, seed=seed) for seed in (1, 2))
        made = from_array(np.stack([left, right], axis=1), RATE_HZ)
        assert made.samples == pytest.approx((left + right) / 2, abs=1e-3)
        assert np.array_equal(from_array(np.stack([left, right]), RATE_HZ).samples, made.samples)

    @pytest.mark.parametrize(
        ("samples", "expected"),
        [
            (np.array([0, 2**14], "int16"), [0, 0.5]),
            (np.array([0, 2**30], "int32"), [0, 0.5]),
            (np.array([0, 2**6], "int8"), [0, 0.5]),
            (np.array([0, 128, 192], "uint8"), [-1.0, 0.0, 0.5]),
        ],
    )
    def test_whole_numbers_are_scaled_by_their_type(self, samples, expected):
        assert from_array(samples, RATE_HZ).samples == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("samples", "rate_hz", "said"),
        [
            (np.zeros(0), RATE_HZ, "no samples"),
            (np.zeros((2, 3, 4)), RATE_HZ, "shape"),
            (np.zeros(5, dtype=complex), RATE_HZ, "complex"),
            (np.array(["a"]), RATE_HZ, "real numbers"),
            (np.zeros((80, 48_000)), RATE_HZ, "80 channels of 48000"),
            (np.array([0.0, np.nan]), RATE_HZ, "NaN"),
            (np.array([0.0, -np.inf]), RATE_HZ, "infinite"),
            (np.full(5, 20_000.0), RATE_HZ, "reach 20000"),
            (np.zeros(5), 0, "rate is 0"),
            (np.zeros(5), -16_000, "rate is -16000"),
            (np.zeros(3_700_000), 1_000, "longer than 60 minutes"),
        ],
    )
    def test_what_is_no_sound_is_refused(self, samples, rate_hz, said):
        with pytest.raises(AudioError, match=said) as caught:
            from_array(samples, rate_hz)
        assert "\n" not in str(caught.value)


def test_bytes_are_called_by_their_name_in_warnings(write, caplog):
    path = write(3 * TONE / np.abs(TONE).max(), kind=("WAV", "FLOAT"))
    found = load_bytes(path.read_bytes(), "stdin")
    assert [one.getMessage().partition(":")[0] for one in caplog.records] == ["stdin"]
    assert found.source == "stdin"
    assert np.array_equal(found.samples, load(path).samples)
