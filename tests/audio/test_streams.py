"""What `stream` gives block by block is what `load` gives of the same file at once."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.audio import load
from aligncap.audio.files import read_header
from aligncap.audio.streams import channel_count, stream
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ
from support.signals import tone


def streamed(file: Path, channel: int | None = None) -> np.ndarray:
    return np.concatenate(list(stream(file, channel=channel)))


def test_a_container_that_is_not_loaded_is_not_streamed(tmp_path):
    file = tmp_path / "clip.voc"
    soundfile.write(file, tone(440, length_s=1), RATE_HZ, format="VOC", subtype="PCM_16")
    with pytest.raises(AudioError, match="not read here") as refused:
        load(file)
    for read in (streamed, channel_count, read_header):
        with pytest.raises(AudioError) as caught:
            read(file)
        assert str(caught.value) == str(refused.value)
