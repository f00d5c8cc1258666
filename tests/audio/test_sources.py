"""What people hold of a recording, heard alike."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from aligncap.audio import load, recording
from aligncap.audio.sources import held, is_recording
from aligncap.errors import AudioError
from aligncap.values import Waveform

CLIP = Path(__file__).resolve().parents[2] / "examples" / "clips" / "woman-slow-soft.ogg"
SAMPLES, RATE = soundfile.read(CLIP, dtype="float32")
STEREO = np.stack([SAMPLES, SAMPLES], axis=1)


class Tensor:
    """As torch's: on another device, with gradients, of a type numpy has not."""

    def __init__(self, values, place="cuda"):
        self.values, self.place = values, place

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.values, "cpu")

    def is_floating_point(self):
        return True

    def float(self):
        return Tensor(self.values, self.place)

    def __array__(self, dtype=None, copy=None):
        assert self.place == "cpu"
        return self.values


DECODER = SimpleNamespace(
    get_all_samples=lambda: SimpleNamespace(data=Tensor(STEREO.T), sample_rate=RATE)
)
HELD = {
    "path": CLIP,
    "name": str(CLIP),
    "bytes": CLIP.read_bytes(),
    "bytearray": bytearray(CLIP.read_bytes()),
    "memoryview": memoryview(CLIP.read_bytes()),
    "file": CLIP.open,
    "memory": lambda _: io.BytesIO(CLIP.read_bytes()),
    "array": SAMPLES,
    "doubles": SAMPLES.astype(np.float64),
    "time first": STEREO,
    "channels first": STEREO.T,
    "one row": SAMPLES[None],
    "tensor": Tensor(SAMPLES[None]),
    "datasets": {"path": "a.wav", "array": SAMPLES, "sampling_rate": RATE},
    "torchaudio": {"waveform": Tensor(STEREO.T), "sample_rate": RATE},
    "undecoded": {"bytes": CLIP.read_bytes(), "path": "a.wav"},
    "by path": {"bytes": None, "path": str(CLIP)},
    "row": {"id": 1, "text": "hm", "audio": {"array": SAMPLES.tolist(), "sampling_rate": RATE}},
    "decoder": DECODER,
    "row of a decoder": {"audio": DECODER},
}


@pytest.mark.parametrize("given", HELD.values(), ids=HELD)
def test_it_is_heard_alike(given):
    if callable(given):
        with given("rb") as file:
            assert is_recording(file)
            given = held(file)  # and closed, as the owner may do
    assert is_recording(given)
    found = recording(given, RATE)
    waveform = found if isinstance(found, Waveform) else load(found)
    assert waveform.samples == pytest.approx(load(CLIP).samples, abs=2e-4)


def test_a_waveform_stays_itself():
    waveform = load(CLIP)
    assert recording(waveform) is waveform


def closed():
    file = CLIP.open("rb")
    file.close()
    return file


WRONG = [
    (None, "NoneType: is no recording; give a path"),
    (3.5, "float: is no recording"),
    ([1, 2], "list: is no recording"),
    ({}, "dict of nothing: is no recording"),
    ({"text": "hm", "id": 3}, "dict of text, id: is no recording"),
    ({"array": [[1.0], [1.0, 2.0]], "sampling_rate": 8000}, "list: is no array of samples"),
    ({"array": SAMPLES}, "give rate_hz"),
    (SAMPLES, "give rate_hz"),
    (np.array(["a"]), "rate_hz"),
    (b"", "bytes: "),
    (b"no sound", "bytes: is text"),
    (io.StringIO("text"), "opened as text; open it with 'rb'"),
    (closed(), "woman-slow-soft.ogg: cannot be read"),
    (Path("nowhere.wav"), "nowhere.wav: does not exist"),
]


@pytest.mark.parametrize(("given", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_none_is_told_what_is_taken(given, words):
    with pytest.raises(AudioError) as caught:
        load(recording(held(given)))  # a path is read where it is used
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", ["16000", float("nan"), 0, 0.5, [16_000]])
def test_a_rate_that_is_no_number_of_hz_is_named(rate) -> None:
    samples = np.zeros(1600, np.float32)
    with pytest.raises(AudioError, match=r"^sampling_rate is .*; give the sampling rate in Hz"):
        recording({"array": samples, "sampling_rate": rate})
    with pytest.raises(AudioError, match=r"^rate_hz is "):
        recording(samples, rate)
