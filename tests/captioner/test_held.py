"""Recordings as other libraries hold them, one by one and mixed."""

import io
import pickle
from pathlib import Path

import pytest
import soundfile

import aligncap

CLIPS = sorted((Path(__file__).resolve().parents[2] / "examples" / "clips").glob("*.ogg"))[:2]


@pytest.fixture(scope="module")
def captioner():
    return aligncap.load()


@pytest.fixture(scope="module")
def expected(captioner):
    return [one.text for one in captioner.caption(CLIPS)]


def test_tensors_of_torch_are_taken(captioner, expected):
    torch = pytest.importorskip("torch")
    samples, rate_hz = soundfile.read(CLIPS[0], dtype="float32")
    tensor = torch.from_numpy(samples)[None].requires_grad_()
    found = captioner.caption(
        [tensor, {"waveform": tensor, "sample_rate": rate_hz}, CLIPS[0]], rate_hz=rate_hz
    )
    assert [one.text for one in found] == expected[:1] * 3


@pytest.mark.slow
def test_a_dataset_of_hugging_face_is_taken(captioner, expected):
    datasets = pytest.importorskip("datasets")
    rows = [{"text": "hm", "audio": {"bytes": clip.read_bytes(), "path": None}} for clip in CLIPS]
    dataset = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
    assert [one.text for one in captioner.caption(dataset)] == expected
    assert [one.text for one in captioner.caption(dataset["audio"])] == expected
    assert captioner.caption(dataset[0]).text == expected[0]


def test_lists_and_generators_mix_them(captioner, expected):
    samples, rate_hz = soundfile.read(CLIPS[0])

    def given():
        with CLIPS[0].open("rb") as file:
            yield file
        yield {"array": samples, "sampling_rate": rate_hz}
        yield from (str(CLIPS[1]), CLIPS[1].read_bytes(), io.BytesIO(CLIPS[1].read_bytes()))

    found = [one.text for one in captioner.caption(given())]
    assert found == [expected[0]] * 2 + [expected[1]] * 3
    outcomes = list(captioner.caption_many([CLIPS[0], 7, b"no sound", CLIPS[1]]))
    assert [str(one)[:5] for one in outcomes[1:3]] == ["int: ", "bytes"]
    assert [outcomes[0].text, outcomes[3].text] == expected
    with pytest.raises(aligncap.AlignCapError, match="int: is no recording"):
        captioner.caption(7)


def test_a_caption_goes_to_another_process_with_all_it_holds(captioner):
    caption = captioner.caption(CLIPS[0])
    found = pickle.loads(pickle.dumps(caption))
    assert found.to_dict() == caption.to_dict()
    assert [(one.name, one.value) for one in found.facts] == [
        (one.name, one.value) for one in caption.facts
    ]
    assert found._repr_html_() == caption._repr_html_()
