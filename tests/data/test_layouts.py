"""Each corpus, laid out as it is shipped, is read as its documents say."""

import json
from pathlib import Path

import pytest

from aligncap.data.captioned import CORPORA, open_corpus, read_captions
from aligncap.data.layouts import Fault, sound_files
from aligncap.data.manifest import Utterance
from aligncap.errors import DataError, UnknownNameError
from support import corpora


def clips(name: str, source: Path) -> dict[str, Utterance]:
    """The clips of a corpus by id; there may be no fault."""
    found = list(open_corpus(name).find(source))
    assert [one for one in found if isinstance(one, Fault)] == []
    return {one.id: one for one in found if isinstance(one, Utterance)}


def test_the_counts_are_those_of_the_paper() -> None:
    counts = {name: sum(open_corpus(name).counts.values()) for name in CORPORA}
    assert counts == {
        "emosec": 45_039, "mer2023": 5_030, "nnime": 5_028, "secap": 600, "esd": 35_000,
        "iemocap": 10_039, "ravdess": 1_440, "emodb": 535, "folder": 0,
    }  # fmt: skip
    assert corpora.MINIATURES.keys() == CORPORA.keys()
    with pytest.raises(UnknownNameError, match="did you mean 'iemocap'"):
        open_corpus("iemocaps")


EXPECTED = {
    "esd": {
        "0003_001051": {
            "language": "zh", "gender": "female", "emotion": "sad", "text": "打远一看。",
            "speaker": "esd_0003", "corpus": "esd",
        },
        "0011_000352": {
            "language": "en", "gender": "male", "emotion": "angry", "text": "You do.",
            "folder": "evaluation",
        },
    },
    "iemocap": {
        "Ses01F_impro01_M000": {
            "emotion": "happy", "label": "excited", "gender": "male", "speaker": "iemocap_Ses01M",
            "text": "Words of Ses01F_impro01_M000.",
        },
        "Ses02M_script01_1_F001": {"emotion": None, "label": "no agreement"},
    },
    "emosec": {
        "0011_000001": {
            "captions": ("Caption of 0011_000001.", "Another of 0011_000001."),
            "corpus": "emosec", "speaker": "esd_0011",
        },
        "Ses01F_impro01_F000": {
            "captions": ("Caption of Ses01F_impro01_F000.", "Another of Ses01F_impro01_F000."),
        },
    },
    "mer2023": {
        # Of descriptions, what is heard is taken.
        "sample_00": {
            "captions": ("His voice is low and slow.", "他的声音低沉。"),
            "emotion": "fearful", "label": "worried", "folder": "train",
        },
        "sample_30": {"captions": (), "folder": "audio"},
    },
    "nnime": {
        "Frustration_01_B_11": {
            "speaker": "nnime_01B", "emotion": "angry", "label": "frustration",
        },
    },
    "ravdess": {
        "03-01-02-01-01-02-02": {
            "emotion": "neutral", "label": "calm", "intensity": "normal", "sentence": "01",
            "speaker": "ravdess_02", "gender": "female",
        },
    },
    "emodb": {
        "08b03Lb": {
            "emotion": "bored", "label": "boredom", "gender": "female", "speaker": "emodb_08",
            "sentence": "b03", "language": "de",
        },
    },
    "secap": {
        # The sounds were listed where they lay elsewhere.
        "tx_emulate_00_110_0001_000001": {
            "captions": ("难过的tx_emulate_00_110_0001_000001", "她很难过"), "folder": "wav",
            "text": "话 tx_emulate_00_110_0001_000001",
        },
    },
    "folder": {
        "deep/two": {"captions": ("A woman speaks softly.", "She sounds tired.")},
        "one": {"speaker": "anna", "emotion": "neutral"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CORPORA)
def test_a_miniature_is_found_whole_and_read(name: str, tmp_path: Path) -> None:
    build, counts = corpora.MINIATURES[name]
    corpus, found = open_corpus(name), clips(name, build(tmp_path))
    assert corpus.name == name
    assert all(one.path.is_file() for one in found.values())
    parts = [corpus.part_of(one) for one in found.values()]
    assert {part: parts.count(part) for part in counts} == dict(counts)
    assert len(found) == (sum(counts.values()) or 2)
    for clip_id, known in EXPECTED[name].items():
        clip = found[clip_id]
        assert {
            key: clip.path.parent.name if key == "folder" else getattr(clip, key) for key in known
        } == known


def test_esd_sentences_without_tabs_are_read(tmp_path: Path) -> None:
    corpora.noise(tmp_path / "0011" / "Sad" / "0011_001051.wav")
    corpora.lines(tmp_path / "0011" / "0011.txt", "0011_001051 The nine the eggs, I keep. Sad")
    assert clips("esd", tmp_path)["0011_001051"].text == "The nine the eggs, I keep."


def test_emosec_follows_links_to_where_the_audio_is(tmp_path: Path) -> None:
    corpora.esd(tmp_path / "disk" / "ESD")
    source = tmp_path / "emosec"
    source.mkdir()
    (source / "ESD").symlink_to(tmp_path / "disk" / "ESD")
    (source / "back").symlink_to(source)  # a link without end
    captions = dict.fromkeys(corpora.captioned(tmp_path / "disk"), "A caption.")
    (source / "merged_file.json").write_text(json.dumps(captions))
    assert len(clips("emosec", source)) == 20


@pytest.mark.parametrize(
    "told",
    [
        {"ESD/0001/Sad/0001_001051.wav": ["One.", " Two. "]},
        {"0001_001051": "One.", "0001_001051.wav": "Two."},
        {"0001_001051": {"emotion": "sad", "captions": ["One.", "Two."]}},
        [{"audio": "a\\0001_001051.wav", "caption": "One."}, {"id": "0001_001051", "text": "Two."}],
    ],
)
def test_captions_of_any_shape_are_read(told: object, tmp_path: Path) -> None:
    file = tmp_path / "merged_file.json"
    file.write_text(json.dumps(told))
    assert read_captions(file) == {"0001_001051": ("One.", "Two.")}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ('"captions"', "holds a str; write {"),
        ('{"a": 3}', "'a' has no captions (3)"),
        ('{"a": {"emotion": "sad"}}', "'a' has none of captions, caption"),
        ("[3]", "entry 0 is no record"),
        ('[{"caption": "One."}]', "entry 0 has none of id, name"),
        ('[{"id": 3, "caption": "One."}]', "entry 0 names its clip 3"),
        ("{", "not JSON in UTF-8"),
    ],
)
def test_captions_of_no_shape_are_named(told: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "merged_file.json"
    file.write_text(told)
    with pytest.raises(DataError) as caught:
        read_captions(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "lacks"), [("emosec", "json"), ("secap", "scp"), ("esd", None)])
def test_a_folder_that_is_another_is_named(name: str, lacks: str | None, tmp_path: Path) -> None:
    place = tmp_path if lacks else tmp_path / "nowhere"
    with pytest.raises(DataError, match=str(place)):
        list(open_corpus(name).find(place))


@pytest.mark.speech_data
@pytest.mark.parametrize("name", ["ravdess", "emodb"])
def test_names_of_real_clips_tell_what_was_agreed(name: str, speech_data: Path) -> None:
    rows = (speech_data / name / "manifest.jsonl").read_text("utf-8").splitlines()
    agreed = {row["id"]: row for row in map(json.loads, rows)}
    found = clips(name, speech_data / name)
    assert found.keys() == agreed.keys()
    for clip_id, row in agreed.items():
        clip = found[clip_id]
        assert (clip.speaker, clip.gender) == (row["speaker"], row["gender"])
        assert clip.intensity == row.get("intensity", clip.intensity)
        assert {clip.label, clip.emotion} & {row["emotion"]}, clip_id


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    corpora.noise(tmp_path / "a.wav")
    corpora.noise(tmp_path / ".trash" / "b.wav")
    corpora.lines(tmp_path / "._a.wav", "of another system")
    assert [file.name for file in sound_files(tmp_path)] == ["a.wav"]
