"""Utterances do not depend on a stream's blocks; other libraries read what is written."""

import itertools
import json

import av
import numpy as np
import parselmouth
import pytest
import soundfile

import aligncap
from aligncap.audio import SpeechDetector, load
from aligncap.audio.activity import utterance_span
from aligncap.audio.streams import channel_count, stream
from aligncap.captioner.segments import GAP_S, Segment, joined, transcribed, utterances
from aligncap.captioner.transcripts import FORMATS, Line, read_transcript
from aligncap.errors import AudioError, DataError, UnknownNameError
from aligncap.values import RATE_HZ
from support.signals import noise


@pytest.fixture(scope="module")
def talk(example_clips) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Two clips in a quiet place, noise after the first, and where they are."""
    parts, spans, at = [np.zeros(24_000, np.float32)], [], 1.5
    for path in (example_clips[0], example_clips[4]):
        clip = load(path).samples
        spans.append((at, at + len(clip) / RATE_HZ))
        parts += [clip, np.zeros(16_000, np.float32), (0.02 * noise(3)).astype(np.float32)]
        at += len(clip) / RATE_HZ + 4
    return np.concatenate(parts), spans


def in_blocks(sound: np.ndarray, size: int):
    return (sound[at : at + size] for at in range(0, len(sound), size))


def test_utterances_are_where_somebody_speaks_whatever_the_blocks(talk):
    sound, spans = talk
    found = [list(utterances(in_blocks(sound, size), SpeechDetector())) for size in (1600, 200_000)]
    for one, other in zip(*found, strict=True):
        assert (one.start_s, one.end_s, one.kind) == (other.start_s, other.end_s, other.kind)
        assert np.array_equal(one.samples, other.samples)
    spoken = [one for one in found[0] if one.kind == "speech"]
    for (start, end), (first, last) in zip(
        spans, [(one.start_s, one.end_s) for one in spoken], strict=True
    ):
        assert start - 0.1 < first < start + 0.5
        assert end - 0.7 < last < end + 0.3
    edges = [edge for one in found[0] for edge in (one.start_s, one.end_s)]
    assert edges == sorted(edges)
    assert {"silence", "noise"} <= {one.kind for one in found[0]}


@pytest.mark.parametrize("left", [1, 100, 511])
def test_nothing_ends_after_the_sound(talk, left):
    """Whether it ends amid silence or speech, within a frame."""
    sound, spans = talk
    for whole in (sound, sound[: round(spans[0][1] * RATE_HZ - 8000)]):
        cut = whole[: len(whole) // 512 * 512 - 512 + left]
        found = list(utterances([cut], SpeechDetector()))
        assert max(one.end_s for one in found) <= len(cut) / RATE_HZ
    assert found[-1].kind == "speech"


def test_speech_without_pauses_is_cut_and_nothing_of_it_is_lost(example_clips):
    """Loud speakers and one 30 dB softer, one after the other."""
    parts = [load(path).samples[1600:-3200] for path in example_clips]
    sound = np.concatenate(parts)
    spoken = [one for one in utterances([sound], SpeechDetector()) if one.kind == "speech"]
    times = [time for one in spoken for time in (one.start_s, one.end_s)]
    assert times == sorted(times)
    lengths = [one.end_s - one.start_s for one in spoken]
    assert max(lengths) < 15.1
    assert sum(lengths) > 0.9 * len(sound) / RATE_HZ
    for one in spoken:
        held = sound[max(0, round(one.start_s * RATE_HZ)) : round(one.end_s * RATE_HZ)]
        assert np.isin(held[:16], one.samples).all()
        assert len(held) - 16 <= len(one.samples) <= len(held) + 2 * 1600


def test_an_utterance_begins_with_its_soft_first_sound(example_clips):
    """Its first third of a second 22 dB softer, which the detector is not sure of."""
    for path in (example_clips[0], example_clips[9]):
        clip = load(path).samples.copy()
        clip[:5600] *= 0.08
        before = np.zeros(24_000, np.float32)
        sound = np.concatenate([before, clip, before])
        (spoken,) = [one for one in utterances([sound], SpeechDetector()) if one.kind == "speech"]
        first, last = utterance_span(clip)
        assert spoken.start_s == pytest.approx(1.5 + first / RATE_HZ, abs=0.03)
        assert spoken.end_s == pytest.approx(1.5 + last / RATE_HZ, abs=0.03)


def test_what_is_silent_up_to_the_first_word_is_silence(example_clips):
    """A call's other channel: digital silence while the other speaks."""
    silence = np.zeros(round(6.23 * RATE_HZ), np.float32)
    sound = np.concatenate([part for one in example_clips for part in (silence, load(one).samples)])
    found = utterances([sound], SpeechDetector())
    assert {one.kind for one in found} == {"silence", "speech"}


def test_a_segment_has_the_caption_of_the_same_cut_as_a_file_in_any_batch(tmp_path, example_clips):
    pause = np.zeros(20_000, np.float32)
    clips = [load(one).samples for one in example_clips[:3]]
    clips[1] = clips[1] + np.float32(0.05)  # an offset, which is removed of a file
    path = tmp_path / "talk.wav"
    sound = np.concatenate([part for clip in clips for part in (clip, pause)])
    soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
    captioner = aligncap.load("mini")
    found = [one for one in captioner.segments(path) if one.kind == "speech"]
    cuts = []
    for number, one in enumerate(utterances(stream(path), captioner.detector)):
        if one.kind == "speech":
            cuts.append(tmp_path / f"{number}.wav")
            soundfile.write(cuts[-1], one.samples, RATE_HZ, subtype="FLOAT")
    assert len(cuts) == len(found) >= len(clips)
    expected = [one.caption.to_dict() for one in found]
    assert [one.to_dict() for one in captioner.caption(cuts)] == expected
    assert [captioner.caption(one).to_dict() for one in reversed(cuts)] == expected[::-1]


def test_utterances_are_relative_to_a_speaker_or_to_each_other(tmp_path, example_clips):
    pause = np.zeros(20_000, np.float32)
    sound = np.concatenate(
        [part for one in example_clips[:5] for part in (load(one).samples, pause)]
    )
    path = tmp_path / "talk.wav"
    soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
    captioner = aligncap.load("mini")
    cuts = []
    for number, one in enumerate(utterances(stream(path), captioner.detector)):
        if one.kind == "speech":
            cuts.append(tmp_path / f"{number}.wav")
            soundfile.write(cuts[-1], one.samples, RATE_HZ, subtype="FLOAT")
    assert len(cuts) >= 5
    usual = captioner.baseline(example_clips[5])
    each = captioner.baselines(cuts, [str(path)] * len(cuts), kind="file")
    assert {one.clips for one in each} == {len(cuts) - 1}
    for given, expected in ((usual, [usual] * len(cuts)), ("own", each)):
        found = [one for one in captioner.segments(path, baseline=given) if one.kind == "speech"]
        assert [one.caption.to_dict() for one in found] == [
            captioner.caption(cut, baseline=one).to_dict()
            for cut, one in zip(cuts, expected, strict=True)
        ]


def test_few_utterances_have_no_baseline_of_their_own(tmp_path, talk):
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk[0], RATE_HZ)
    captioner = aligncap.load("mini")
    found = list(captioner.segments(path, baseline="own"))
    spoken = [one.caption for one in found if one.kind == "speech"]
    assert [one.baseline.reason for one in spoken] == ["it needs 3 utterances, 2 can be used"] * 2
    assert [one.text for one in found] == [one.text for one in captioner.segments(path)]


def test_what_a_baseline_cannot_be_is_said(tmp_path, talk, monkeypatch):
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk[0], RATE_HZ)
    captioner = aligncap.load("mini")
    with pytest.raises(UnknownNameError, match="no baseline called 'file'"):
        list(captioner.segments(path, baseline="file"))
    measured = captioner.baselines

    def recorded_meanwhile(*arguments, **options):
        found = measured(*arguments, **options)
        soundfile.write(path, np.concatenate((talk[0], talk[0])), RATE_HZ)
        return found

    monkeypatch.setattr(captioner, "baselines", recorded_meanwhile)
    with pytest.raises(AudioError, match="has grown since"):
        list(captioner.segments(path, baseline="own"))


def test_a_long_speech_is_cut(example_clips):
    clip = load(example_clips[1]).samples
    speech = np.concatenate([clip[: len(clip) - 4000]] * 14)
    found = [one for one in utterances([speech], SpeechDetector()) if one.kind == "speech"]
    assert max(one.end_s - one.start_s for one in found) <= 15.1
    assert sum(one.end_s - one.start_s for one in found) > 0.7 * len(speech) / RATE_HZ


def test_neighbours_without_speech_are_one():
    made = [Segment(0, 5, "noise"), Segment(5, 9, "noise"), Segment(9, 10, "speech")]
    made += [Segment(10, 12, "music"), Segment(12 + 2 * GAP_S, 16, "music")]
    found = [(one.start_s, one.end_s, one.kind) for one in joined(made)]
    assert found[:2] == [(0, 9, "noise"), (9, 10, "speech")]
    assert len(found) == 4


def test_a_file_is_streamed_as_it_is_loaded(tmp_path, example_clips):
    clip = load(example_clips[0]).samples
    both = np.stack((clip, 0.5 * noise(10)[: len(clip)] * 0.01), axis=1)
    soundfile.write(tmp_path / "call.wav", both, RATE_HZ)
    path = tmp_path / "call.wav"
    assert channel_count(path) == 2
    assert np.concatenate(list(stream(path, channel=0))) == pytest.approx(clip, abs=1e-4)
    with pytest.raises(AudioError, match="2 channels"):
        list(stream(path, channel=2))


LINES = [Line(0.25, 1.0, "Good morning"), Line(1.5, 2.5, "“Yes” & <no>")]


def test_a_transcript_says_where_to_cut():
    sound = (0.1 * noise(3)).astype(np.float32)
    for size in (1000, 48_000):
        found = list(transcribed(in_blocks(sound, size), LINES))
        assert [one.words for one in found] == [line.words for line in LINES]
        for one, line in zip(found, LINES, strict=True):
            cut = sound[round(line.start_s * RATE_HZ) : round(line.end_s * RATE_HZ)]
            assert np.array_equal(one.samples, cut)


def test_lines_beyond_the_end_are_told(caplog):
    beyond = [*LINES, Line(2.9, 3.2, "So"), Line(3.0, 4.0, "what"), Line(5.0, 6.0, "now?")]
    found = list(transcribed(in_blocks((0.1 * noise(3)).astype(np.float32), 1000), beyond))
    assert [one.words for one in found] == ["Good morning", "“Yes” & <no>", "So"]
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 5 lines of the transcript, from 3.0 s on, are left")
    assert "ends at 3.0 s" in record.getMessage()
    caplog.clear()
    list(transcribed(in_blocks((0.1 * noise(3)).astype(np.float32), 1000), LINES))
    assert not caplog.records


TRANSCRIPTS = {
    "a.srt": "1\n00:00:00,250 --> 00:00:01,000\nGood\nmorning\n\n"
    "2\n00:00:01,500 --> 00:00:02,500\n“Yes” & <no>\n",
    "a.vtt": "WEBVTT\n\n00:00.250 --> 00:01.000 align:start\nGood morning\n\n"
    "00:01.500 --> 00:02.500\n“Yes” & <no>\n",
    "a.json": json.dumps(
        {"segments": [{"start": one.start_s, "end": one.end_s, "text": one.words} for one in LINES]}
    ),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcripts_are_read(tmp_path, name):
    (tmp_path / name).write_text(TRANSCRIPTS[name], "utf-8")
    assert read_transcript(tmp_path / name) == LINES


def test_markup_of_subtitles_is_no_word(tmp_path):
    lines = [Line(0.0, 1.0, "Good morning <laughs>"), Line(1.0, 2.0, "<b> & so on")]
    (tmp_path / "a.srt").write_text(
        '1\n00:00:00,000 --> 00:00:01,000\n<font color="#fff">Good</font> <i>morning</i> <laughs>\n'
    )
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.000\n<v.a Ann>Good <00:00.500><c>morning</c> <laughs></v>\n"
        "\n00:01.000 --> 00:02.000\n&lt;b&gt; &amp; so on\n"
    )
    assert read_transcript(tmp_path / "a.srt") == lines[:1]
    assert read_transcript(tmp_path / "a.vtt") == lines


@pytest.mark.parametrize("name", ["a.srt", "a.json"])
def test_another_file_is_no_transcript(tmp_path, name):
    (tmp_path / name).write_text("{}", "utf-8")
    with pytest.raises(DataError, match=name):
        read_transcript(tmp_path / name)


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_cues_without_empty_lines_between_them_are_cues(tmp_path, name):
    cues = "1\n00:00:00,250 --> 00:00:01,000\nGood morning\n2\n00:00:01,500 --> 00:00:02,500\nYes\n"
    (tmp_path / name).write_text(cues)
    assert read_transcript(tmp_path / name) == [LINES[0], Line(1.5, 2.5, "Yes")]
    uncounted = "00:00.25 --> 00:01.00\nAll\n42\n\n00:03 --> 00:04\nGone\n\nnot said\n"
    (tmp_path / name).write_text(uncounted)
    assert read_transcript(tmp_path / name) == [Line(0.25, 1.0, "All 42"), Line(3.0, 4.0, "Gone")]


def test_words_that_are_null_are_none(tmp_path):
    segments = [{"start": 0, "end": 1, "text": None}, {"start": 1, "end": 2, "text": " a\nb "}]
    (tmp_path / "a.json").write_text(json.dumps({"segments": segments}))
    assert read_transcript(tmp_path / "a.json") == [Line(0, 1, ""), Line(1, 2, "a b")]


@pytest.mark.parametrize(
    "times", ["NaN, 1", "0, NaN", "0, Infinity", "-Infinity, 1", "-5, 1", "2, 1"]
)
def test_times_that_are_none_are_named(tmp_path, times):
    start, end = times.split(", ")
    rows = f'{{"start": 0, "end": 1, "text": "a"}}, {{"start": {start}, "end": {end}, "text": "b"}}'
    (tmp_path / "a.json").write_text(f'{{"segments": [{rows}]}}')
    with pytest.raises(DataError, match=r"^\S+a\.json: segment 2: from .* mend or remove it$"):
        read_transcript(tmp_path / "a.json")


def test_a_line_that_lasts_no_time_is_told_where_it_has_words(tmp_path, caplog):
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\n00:01.0 --> 00:01.0\nyou\n\n00:02.0 --> 00:02.0\n\n00:03.0 --> 00:04.0\nGood\n"
    )
    assert read_transcript(tmp_path / "a.vtt") == [Line(3, 4, "Good")]
    assert [one.getMessage() for one in caplog.records] == [
        f"{tmp_path / 'a.vtt'}:3: lasts no time and is left out: “you”"
    ]


@pytest.mark.parametrize(
    "times",
    ["00:02,0 --> 00:01,0", "-00:05,0 --> 00:09,0", "00:01.2.3 --> 00:05",
     "1:2:3:4 --> 1:2:3:5", f"00:01 --> {'9' * 400}"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_times_of_a_cue_that_are_none_are_named_by_their_line(tmp_path, name, times):
    (tmp_path / name).write_text(f"1\n00:00,0 --> 00:01,0\nGood\n\n2\n{times}\nmorning\n")
    with pytest.raises(DataError, match=rf"^\S+{name}:6: [^\n]*$"):
        read_transcript(tmp_path / name)


def test_numbers_that_no_float_holds_are_one_line(tmp_path):
    for text in (
        '{"segments": [{"start": 1' + "0" * 400 + ', "end": 1, "text": ""}]}',
        "[" * 99_999,
    ):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match="has no segments"):
            read_transcript(tmp_path / "a.json")


def test_subtitles_of_several_channels_say_who_speaks(tmp_path):
    found = [Segment(0.5, 2.0, "music", channel=0), Segment(1.0, 2.5, "noise", channel=1)]
    texts = {form: "\n".join(FORMATS[form](found)) + "\n" for form in ("srt", "vtt", "labels")}
    said = {"srt": "channel {}: [{}]", "vtt": "<v channel {}>[{}]"}
    for form, template in said.items():
        (tmp_path / f"a.{form}").write_text(texts[form])
        with av.open(str(tmp_path / f"a.{form}")) as file:
            cues = [
                bytes(one).decode() for one in file.demux(file.streams.subtitles[0]) if one.size
            ]
        assert cues == [template.format(1, "music"), template.format(2, "noise")]
    labels = [line.split("\t")[2] for line in texts["labels"].splitlines()]
    assert labels == ["channel 1: [music]", "channel 2: [noise]"]
    assert [one.words for one in read_transcript(tmp_path / "a.vtt")] == ["[music]", "[noise]"]


SEGMENTS = [
    Segment(0.5, 3661.25, "silence"),
    Segment(3662.0, 3663.004, "music", channel=None),
    Segment(3663.004, 3664.5, "noise"),
]


def test_other_libraries_read_what_is_written(tmp_path):
    texts = {form: "\n".join(write(SEGMENTS)) + "\n" for form, write in FORMATS.items()}
    expected = [(one.start_s, one.end_s, one.text) for one in SEGMENTS]
    for form in ("srt", "vtt"):
        (tmp_path / f"a.{form}").write_text(texts[form], "utf-8")
        with av.open(str(tmp_path / f"a.{form}")) as file:
            found = [one for one in file.demux(file.streams.subtitles[0]) if one.size]
        assert [bytes(one).decode() for one in found] == [text for *_, text in expected]
        times = [
            (one.pts * one.time_base, (one.pts + one.duration) * one.time_base) for one in found
        ]
        assert [(float(a), float(b)) for a, b in times] == [(a, b) for a, b, _ in expected]
    (tmp_path / "a.TextGrid").write_text(texts["textgrid"], "utf-8")
    grid = parselmouth.read(str(tmp_path / "a.TextGrid"))

    def ask(question: str, number: int):
        return parselmouth.praat.call(grid, question, 1, number)

    count = parselmouth.praat.call(grid, "Get number of intervals", 1)
    intervals = [
        (
            ask("Get start time of interval", number),
            ask("Get end time of interval", number),
            ask("Get label of interval", number),
        )
        for number in range(1, count + 1)
    ]
    assert [one for one in intervals if one[2]] == expected
    labels = [line.split("\t") for line in texts["labels"].splitlines()]
    assert [(float(a), float(b), text) for a, b, text in labels] == expected


def test_a_textgrid_has_no_gaps_and_no_overlaps():
    made = [Segment(1, 3, "noise", channel=0), Segment(2, 4, "noise", channel=0)]
    lines = "\n".join(FORMATS["textgrid"](made))
    times = [float(line.split("=")[1]) for line in lines.splitlines() if "xm" in line][4:]
    spans = list(zip(times[::2], times[1::2], strict=True))
    assert spans == [(0, 1), (1, 3), (3, 4)]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
