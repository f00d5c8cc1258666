"""Sound files are read whatever their form; what cannot be read is refused in one line."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.audio import level_db, load
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ
from support.signals import noise, seconds, tone

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


def written(folder: Path, samples, *, name="clip.wav", rate_hz=RATE_HZ, kind=("WAV", "PCM_16")):
    file = folder / name
    soundfile.write(file, samples, rate_hz, format=kind[0], subtype=kind[1])
    return file


def refusal(path) -> str:
    """The message that a file is refused with: one line that begins with the file's name."""
    with pytest.raises(AudioError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    return message


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_libsndfile_is_read(tmp_path, name):
    file = written(tmp_path, tone(440, length_s=1), name=f"clip.{name}", kind=FORMATS[name])
    heard = load(file)
    assert heard.duration_s == pytest.approx(1.0, abs=0.1)  # mp3 adds a frame of its own
    assert level_db(heard) == pytest.approx(20 * np.log10(0.3) - 3.01, abs=0.6)
    assert heard.source == str(file)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_becomes_mono_at_16_khz(tmp_path, rate_hz, channels):
    times = np.arange(rate_hz) / rate_hz
    sound = 0.4 * np.sin(2 * np.pi * 500 * times)
    many = np.stack([sound * (number + 1) / channels for number in range(channels)], axis=1)
    heard = load(written(tmp_path, many, rate_hz=rate_hz, kind=("WAV", "PCM_24")))
    assert len(heard.samples) == pytest.approx(RATE_HZ, abs=2)
    factor = np.mean([(number + 1) / channels for number in range(channels)])
    expected = 0.4 * factor * np.sin(2 * np.pi * 500 * seconds(1))
    middle = slice(1_000, 15_000)  # away from the resampler's edges
    assert np.abs(heard.samples[middle] - expected[middle]).max() < 2e-3


def test_what_lies_above_half_the_rate_does_not_fold_back(tmp_path):
    times = np.arange(48_000) / 48_000
    file = written(tmp_path, 0.5 * np.sin(2 * np.pi * 11_000 * times), rate_hz=48_000)
    assert level_db(load(file)) < -60


def test_long_files_are_joined_without_a_seam(tmp_path):
    times = np.arange(48_000 * 20) / 48_000  # several of the stretches it is read in
    file = written(tmp_path, 0.5 * np.sin(2 * np.pi * 300 * times), rate_hz=48_000)
    expected = 0.5 * np.sin(2 * np.pi * 300 * seconds(20))
    assert np.abs(load(file).samples - expected)[500:-500].max() < 2e-3


def test_eight_bits_are_read_around_their_middle(tmp_path):
    file = written(tmp_path, tone(200, length_s=1), kind=("WAV", "PCM_U8"))
    heard = load(file).samples
    assert np.abs(heard - tone(200, length_s=1)).max() < 0.02


def test_float_samples_beyond_full_scale_are_clipped(tmp_path):
    file = written(tmp_path, 3 * tone(200, length_s=1, peak=1.0), kind=("WAV", "FLOAT"))
    assert np.abs(load(file).samples).max() == 1.0


def test_one_sample_can_be_read(tmp_path):
    assert len(load(written(tmp_path, np.array([0.5]))).samples) == 1


def test_a_file_is_read_for_what_it_holds_not_for_its_name(tmp_path):
    written(tmp_path, tone(440, length_s=1), name="clip.flac", kind=("FLAC", "PCM_16"))
    renamed = (tmp_path / "clip.flac").rename(tmp_path / "clip.m4a")
    assert load(renamed).duration_s == 1.0


def test_a_missing_file_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.wav")


def test_a_folder_is_refused(tmp_path):
    assert "is a folder" in refusal(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert "no regular file" in refusal(tmp_path / "pipe.wav")


@pytest.mark.parametrize("name", ["a\0b.wav", "x" * 300 + ".wav"])
def test_an_impossible_name_is_refused(tmp_path, name):
    with pytest.raises(AudioError, match="cannot be opened"):
        load(tmp_path / name)


def test_an_unreadable_file_is_refused(tmp_path):
    file = written(tmp_path, tone(440, length_s=1))
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user reads every file, whatever its permissions")
    assert "permissions" in refusal(file)


BYTES = {
    "empty.wav": (b"", "is empty"),
    "note.wav": (b"Dear listener,\nthis is a letter.\n", "is text"),
    "brief.wav": ("你好，世界".encode() * 40, "is text"),
    "paper.wav": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
    "sheet.wav": (b"PK\x03\x04" + bytes(100), "zip"),
    "photo.mp3": (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture"),
    "talk.m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(100), "ffmpeg -i talk.m4a talk.wav"),
    "film.wav": (b"\0\0\0\x20ftypisom\0\0\0\0" + bytes(100), "ffmpeg -i film.wav"),
    "talk.webm": (b"\x1a\x45\xdf\xa3" + bytes(100), "ffmpeg -i talk.webm talk.wav"),
    "talk.aac": (b"\xff\xf1\x50\x80" + bytes(100), "ffmpeg -i talk.aac talk.wav"),
    "talk.wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(100), "ffmpeg"),
    "clip.raw": (bytes(range(256)) * 10, "ffmpeg -f s16le"),
    "junk.wav": (bytes(range(255, 0, -1)) * 10, "no sound"),
    "pointer.flac": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "header.wav": (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", "export it again"),
}


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_readable_sound_is_refused(tmp_path, name):
    content, said = BYTES[name]
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["wav", "flac", "aiff", "mp3", "caf"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_file_cut_short_is_refused(tmp_path, name, share):
    file = written(tmp_path, 0.1 * noise(3), name=f"clip.{name}", kind=FORMATS[name])
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert "cut short" in refusal(file)


def with_sizes(file: Path, size: int) -> Path:
    """A wav file whose header says this of its size: a pipe cannot be rewound to fill it in."""
    whole = bytearray(file.read_bytes())
    whole[4:8] = whole[40:44] = struct.pack("<I", size)
    file.write_bytes(whole)
    return file


def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path):
    file = with_sizes(written(tmp_path, tone(440, length_s=1)), 0xFFFFFFFF)
    assert load(file).duration_s == pytest.approx(1.0, abs=0.01)


def test_a_wav_whose_recorder_crashed_is_refused_with_a_cure(tmp_path):
    file = with_sizes(written(tmp_path, tone(440, length_s=1)), 0)
    assert "header was never finished" in refusal(file)
    assert "ffmpeg -i clip.wav" in refusal(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, value):
    sound = tone(440, length_s=1)
    sound[100:103] = value
    assert "3 samples are NaN" in refusal(written(tmp_path, sound, kind=("WAV", "FLOAT")))


def test_a_file_without_samples_is_refused(tmp_path):
    assert "no samples" in refusal(written(tmp_path, np.zeros(0)))


def test_hours_are_refused_before_they_are_read(tmp_path):
    # An hour and ten seconds at the lowest rate, whose bytes are a hole in the file.
    file = written(tmp_path, np.zeros(1000), rate_hz=1000, kind=("WAV", "PCM_U8"))
    header = bytearray(file.read_bytes()[:44])
    count = 3610 * 1000
    header[4:8], header[40:44] = struct.pack("<I", 36 + count), struct.pack("<I", count)
    with file.open("wb") as opened:
        opened.write(header)
        opened.truncate(44 + count)
    assert "longer than 60 minutes" in refusal(file)
