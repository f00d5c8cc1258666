"""Sound that PyAV decodes, encoded by PyAV itself and compared with what went in."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.audio import load
from aligncap.audio.files import read_header
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ

av = pytest.importorskip("av", reason="needs the media extra")

CLIP = Path(__file__).resolve().parents[2] / "examples" / "clips" / "woman-slow-soft.ogg"
# Suffix → encoder, rate, layout.
KINDS = {
    ".m4a": ("aac", 44_100, "stereo"),
    ".mp4": ("aac", 48_000, "mono"),
    ".webm": ("libopus", 48_000, "mono"),
    ".mkv": ("libopus", 48_000, "stereo"),
    ".wma": ("wmav2", 22_050, "mono"),
    ".aac": ("aac", 16_000, "mono"),
    ".amr": ("libopencore_amrnb", 8_000, "mono"),
}


def encoded(file: Path, codec: str, rate_hz: int, layout: str, *, film: bool = False) -> Path:
    samples, clip_rate_hz = soundfile.read(CLIP, dtype="float32")
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = clip_rate_hz
    with av.open(str(file), "w") as container:
        pictures = film and container.add_stream("mpeg4", rate=10)
        if pictures:
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        try:
            stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        except av.error.FFmpegError:
            pytest.skip(f"this PyAV has no encoder {codec}")
        if codec in ("aac", "wmav2"):
            stream.bit_rate = 96_000
        resampler = av.AudioResampler(stream.format, layout, rate_hz, stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
        for number in range(40 if pictures else 0):
            picture = av.VideoFrame(32, 32, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            container.mux(pictures.encode(picture))
        if pictures:
            container.mux(pictures.encode(None))
    return file


def agreement(file: Path) -> float:
    """The correlation with the clip, at the best of all lags: encoders delay."""
    heard, clip = load(file).samples, load(CLIP).samples
    assert len(heard) == pytest.approx(len(clip), abs=0.2 * RATE_HZ)
    spectra = [np.fft.rfft(one, 2 * len(heard)) for one in (heard, clip)]
    products = np.fft.irfft(spectra[0] * spectra[1].conj())
    return float(products.max() / np.linalg.norm(heard) / np.linalg.norm(clip))


@pytest.mark.parametrize("suffix", KINDS)
def test_it_is_heard_as_it_was(tmp_path, suffix):
    codec, rate_hz, layout = KINDS[suffix]
    file = encoded(tmp_path / f"talk{suffix}", codec, rate_hz, layout)
    assert agreement(file) > (0.8 if suffix == ".amr" else 0.95)
    length_s, told_hz = read_header(file)
    assert told_hz == rate_hz
    assert length_s == pytest.approx(load(CLIP).duration_s, abs=0.2)


def test_at_another_rate_the_same_channels_are_heard(tmp_path):
    clip = load(CLIP).samples
    both = np.stack((clip, -clip), axis=1).reshape(1, -1)
    with av.open(str(tmp_path / "talk.mkv"), "w") as container:
        track = container.add_stream("pcm_f32le", rate=RATE_HZ, layout="stereo")
        frame = av.AudioFrame.from_ndarray(both, format="flt", layout="stereo")
        frame.sample_rate = RATE_HZ
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    heard = load(tmp_path / "talk.mkv")
    assert np.abs(heard.samples - clip).max() < 1e-6
    again = heard.at_rate(48_000, 0, len(clip))
    assert np.abs(again[::3] - clip)[100:-100].max() < 2e-3


def test_the_sound_of_a_film_is_heard_whatever_its_name(tmp_path):
    film = encoded(tmp_path / "film.mp4", "aac", 48_000, "stereo", film=True)
    assert agreement(film.rename(tmp_path / "film.wav")) > 0.95


def test_a_film_without_sound_and_one_that_is_cut_are_refused(tmp_path):
    mute = tmp_path / "mute.mkv"
    with av.open(str(mute), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        container.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(pictures.encode(None))
    with pytest.raises(AudioError, match="without sound"):
        load(mute)
    whole = encoded(tmp_path / "talk.mkv", "libopus", 48_000, "mono").read_bytes()
    for share in (0.02, 0.5):
        cut = tmp_path / "cut.mkv"
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AudioError, match="cut short") as caught:
            load(cut)
        assert "\n" not in str(caught.value)


def test_without_the_library_it_is_told_how_to_get_it(tmp_path):
    file = tmp_path / "talk.m4a"
    file.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from aligncap.audio import load\n"
        "try:\n load(sys.argv[1])\nexcept Exception as error:\n print(type(error).__name__, error)"
    )
    ran = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    assert ran.stdout.startswith(f"AudioError {file}: ")
    assert "pip install 'aligncap[media]', or convert it: ffmpeg -i talk.m4a talk.wav" in ran.stdout
