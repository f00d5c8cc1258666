"""aligncap caption --segments: formats by the libraries that read them; channels, transcripts."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import parselmouth
import pytest
import soundfile
import srt

from aligncap.audio import load
from aligncap.values import RATE_HZ

TEXT = "Somebody speaks loudly."
NEAR_S = 0.6
"""Clips have quiet edges, and an utterance ends where the detector hears it end."""


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory, example_clips: list[Path]) -> Path:
    """Two voices one after the other, each in a channel of its own."""
    first, second = (load(example_clips[number]).samples for number in (0, 4))
    pause = np.zeros(2 * RATE_HZ, np.float32)
    left = np.concatenate([pause, first, pause, 0 * second, pause])
    right = np.concatenate([pause, 0 * first, pause, second, pause])
    path = tmp_path_factory.mktemp("calls") / "call.wav"
    soundfile.write(path, np.stack((left, right), axis=1), RATE_HZ)
    return path


@pytest.fixture(scope="module")
def spans(example_clips: list[Path]) -> list[tuple[float, float]]:
    """When the two voices speak."""
    first, second = (load(example_clips[number]).duration_s for number in (0, 4))
    return [(2.0, 2.0 + first), (4.0 + first, 4.0 + first + second)]


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def spoken_in(text: str) -> list[dict[str, Any]]:
    return [one for one in records(text) if one["kind"] == "speech"]


def clocked(text: str) -> float:
    hours, minutes, seconds = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def test_jsonl_has_utterances_where_somebody_speaks_and_names_the_rest(aligncap, call, spans):
    ran = aligncap("caption", call, "--segments", "--format", "jsonl")
    assert (ran.code, ran.err) == (0, "")
    spoken = spoken_in(ran.out)
    for one, (start_s, end_s) in zip(spoken, spans, strict=True):
        assert one["start_s"] == pytest.approx(start_s, abs=NEAR_S)
        assert one["end_s"] == pytest.approx(end_s, abs=NEAR_S)
        assert (one["file"], one["caption"]) == (str(call), TEXT)
        assert one["emotion"] == {"angry": 0.7, "happy": 0.3}
    silent = [one for one in records(ran.out) if one["kind"] == "silence"]
    assert len(silent) == 3
    assert not any("caption" in one for one in silent)


def test_other_formats_say_what_jsonl_says(aligncap, call, tmp_path):
    expected = [
        (one["start_s"], one["end_s"], one.get("caption", f"[{one['kind']}]"))
        for one in records(aligncap("caption", call, "--segments", "--format", "jsonl").out)
        if one["kind"] != "summary"
    ]

    def asked(*options: object) -> str:
        ran = aligncap("caption", call, *options)
        assert (ran.code, ran.err) == (0, "")
        return ran.out

    cues = srt.parse(asked("--segments", "--segments-as", "srt"), ignore_errors=False)
    assert [
        (one.start.total_seconds(), one.end.total_seconds(), one.content) for one in cues
    ] == expected
    (tmp_path / "a.vtt").write_text(asked("--segments-as", "vtt"), "utf-8")
    with av.open(str(tmp_path / "a.vtt")) as file:
        packets = [one for one in file.demux(file.streams.subtitles[0]) if one.size]
    assert [(float(one.pts * one.time_base), bytes(one).decode()) for one in packets] == [
        (start_s, text) for start_s, _, text in expected
    ]
    labels = [line.split("\t") for line in asked("--segments-as", "labels").splitlines()]
    assert [(float(start), float(end), text) for start, end, text in labels] == expected
    rows = list(csv.DictReader(io.StringIO(asked("--segments", "--format", "csv"))))
    assert [
        (float(one["start_s"]), float(one["end_s"]), one["caption"] or f"[{one['kind']}]")
        for one in rows
    ] == expected
    assert {one["emotion"] for one in rows} == {"angry", ""}
    lines = asked("--segments").splitlines()[: len(expected)]
    for line, (start_s, end_s, text) in zip(lines, expected, strict=True):
        times, _, said = line.partition("  ")
        assert [clocked(one) for one in times.split(" – ")] == [start_s, end_s]
        assert said == text


def test_a_textgrid_has_a_tier_for_each_channel(aligncap, call, spans, tmp_path):
    output = tmp_path / "call.TextGrid"
    assert aligncap("caption", call, "--segments", "--channels", "split", "-o", output).code == 0
    grid = parselmouth.read(str(output))

    def ask(question: str, *numbers: int) -> Any:
        return parselmouth.praat.call(grid, question, *numbers)

    assert ask("Get number of tiers") == 2
    for tier, (start_s, end_s) in enumerate(spans, start=1):
        assert ask("Get tier name", tier) == f"channel {tier}"
        numbers = range(1, ask("Get number of intervals", tier) + 1)
        (spoken,) = [one for one in numbers if ask("Get label of interval", tier, one) == TEXT]
        start = ask("Get start time of interval", tier, spoken)
        end = ask("Get end time of interval", tier, spoken)
        assert (start, end) == (
            pytest.approx(start_s, abs=NEAR_S),
            pytest.approx(end_s, abs=NEAR_S),
        )


def test_channels_are_captioned_apart_in_the_order_of_time(aligncap, call):
    split = ("--segments", "--channels", "split")
    found = records(aligncap("caption", call, *split, "--format", "jsonl").out)
    found = [one for one in found if one["kind"] != "summary"]
    assert [one["channel"] for one in found if one["kind"] == "speech"] == [1, 2]
    starts = [one["start_s"] for one in found]
    assert starts == sorted(starts)
    text = aligncap("caption", call, *split).out
    assert [line.split(":  ")[0][-1] for line in text.splitlines() if TEXT in line] == ["1", "2"]
    rows = csv.DictReader(io.StringIO(aligncap("caption", call, *split, "--format", "csv").out))
    assert [one["channel"] for one in rows if one["kind"] == "speech"] == ["1", "2"]


def test_a_transcript_says_where_to_cut_and_its_words_are_kept(aligncap, call, spans, tmp_path):
    lines = [
        srt.Subtitle(number, srt.timedelta(seconds=start), srt.timedelta(seconds=end), words)
        for number, ((start, end), words) in enumerate(
            zip(spans, ("Good morning", "Is it?"), strict=True), 1
        )
    ]
    given = tmp_path / "words.srt"
    given.write_text(srt.compose(lines), "utf-8")
    ran = aligncap("caption", call, "--transcript", given, "--format", "jsonl")
    assert [one["words"] for one in spoken_in(ran.out)] == ["Good morning", "Is it?"]
    for one, (start_s, end_s) in zip(spoken_in(ran.out), spans, strict=True):
        assert (one["start_s"], one["end_s"]) == (
            pytest.approx(start_s, abs=1e-3),
            pytest.approx(end_s, abs=1e-3),
        )
        assert one["caption"] == TEXT
    text = aligncap("caption", call, "--transcript", given).out
    assert [line.endswith(words) for line, words in zip(
        text.splitlines(), (f"{TEXT}  “Good morning”", f"{TEXT}  “Is it?”"), strict=False
    )] == [True, True]  # fmt: skip


def test_columns_of_a_manifest_are_those_of_its_segments(aligncap, call, tmp_path):
    manifest = tmp_path / "calls.jsonl"
    row = {"file": str(call), "id": "c1", "speaker": "Ada", "room": {"size": 3}, "emotion": "sad"}
    manifest.write_text(json.dumps(row) + "\n")
    ran = aligncap("caption", manifest, "--segments", "--format", "jsonl")
    for one in spoken_in(ran.out):
        assert (one["id"], one["speaker"], one["room"]) == ("c1", "Ada", {"size": 3})
        assert (one["manifest_emotion"], one["emotion"]["angry"]) == ("sad", 0.7)
    ran = aligncap("caption", manifest, "--segments", "--format", "csv")
    for one in csv.DictReader(io.StringIO(ran.out)):
        assert (one["id"], one["speaker"], json.loads(one["room"])) == ("c1", "Ada", {"size": 3})
        assert one["manifest_emotion"] == "sad"


def test_utterances_are_relative_to_recordings_of_the_speaker(aligncap, call, clip, tmp_path):
    usual = tmp_path / "usual.wav"
    usual.write_bytes(clip.read_bytes())
    asked = ("caption", call, "--segments", "--baseline", usual)
    for one in spoken_in(aligncap(*asked, "--format", "jsonl").out):
        assert (one["baseline"]["source"], one["baseline"]["clips"]) == (str(usual), 1)
    aligncap(*asked, "-o", usual, "--format", "jsonl", "--overwrite").refused("usual.wav")
    assert usual.read_bytes() == clip.read_bytes()


def test_the_utterances_of_a_channel_are_relative_to_each_other(aligncap, call, tmp_path):
    sound, rate_hz = soundfile.read(call)
    path = tmp_path / "call.wav"
    soundfile.write(path, np.concatenate([sound[:, :1]] * 4 + [sound[:, 1:]], axis=0), rate_hz)
    four = (*("caption", path, "--segments", "--per", "file"), "--format", "jsonl")
    assert {one["baseline"]["clips"] for one in spoken_in(aligncap(*four).out)} == {4}
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, 9 * sound, rate_hz, subtype="FLOAT")
    warned = aligncap("caption", loud, "--segments", "--per", "file").err
    assert warned.count("scaled to full scale") == 1, "though it is read twice"
    two = (*("caption", call, "--segments", "--per", "file"), "--channels", "split")
    ran = aligncap(*two)
    for number in (1, 2):
        told = f"no baseline of file {call}, channel {number}: it needs 3 utterances, 1 can be used"
        assert ran.err.count(told) == 1
    assert ran.out == aligncap("caption", call, "--segments", "--channels", "split").out


def test_a_file_that_cannot_be_read_is_a_line_and_the_others_go_on(aligncap, call, tmp_path):
    absent = tmp_path / "absent.wav"
    ran = aligncap("caption", absent, call, "--segments", "--format", "jsonl")
    assert ran.code == 1
    assert "absent.wav" in ran.err
    assert ran.err.count("\n") == 1
    assert len(spoken_in(ran.out)) == 2
    failed = records(ran.out)[0]
    assert (failed["file"], failed["kind"], list(failed)) == (
        *(str(absent), "error"),
        ["file", "error", "kind"],
    )
    assert "absent.wav" in failed["error"]
    ran = aligncap("caption", absent, call, "--segments", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [one["kind"] for one in rows if one["error"]] == ["error"]
    assert sum(one["kind"] == "speech" for one in rows) == 2


@pytest.mark.parametrize("form", ["txt", "srt", "vtt", "TextGrid", "labels"])
def test_an_output_is_left_where_nothing_is_written(aligncap, tmp_path, form):
    kept, new = tmp_path / f"kept.{form}", tmp_path / f"new.{form}"
    kept.write_text("years of work")
    absent = tmp_path / "absent.wav"
    assert aligncap("caption", absent, "--segments", "-o", kept, "--overwrite").code == 1
    assert aligncap("caption", absent, "--segments", "-o", new).code == 1
    assert kept.read_text() == "years of work"
    assert not new.exists()
    # A recording of which nothing is to be said is no failure: that is written.
    soundfile.write(tmp_path / "short.wav", np.zeros(RATE_HZ // 2), RATE_HZ)
    short = ("caption", tmp_path / "short.wav", "--segments", "-o", kept, "--overwrite")
    assert aligncap(*short).code == 0
    assert "years" not in kept.read_text()


def test_no_input_is_overwritten(aligncap, call, tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    sound = folder / "a.wav"
    sound.write_bytes(call.read_bytes())
    manifest, text = tmp_path / "m.jsonl", tmp_path / "t.html"
    manifest.write_text(json.dumps({"file": "calls/a.wav"}))
    text.write_text("1\n00:00:01,000 --> 00:00:02,000\nWords\n")
    before = [one.read_bytes() for one in (sound, manifest, text)]
    for given in (
        (sound, "--transcript", text, "--segments-as", "srt", "-o", text),
        (folder, "--segments", "--format", "jsonl", "-o", sound),
        (manifest, "--segments", "--format", "jsonl", "-o", sound),
        (sound, "--transcript", text, "--plot", text),
        (manifest, "--segments", "--plot", folder / "a.wav"),
    ):
        ran = aligncap("caption", *given, "--overwrite")
        assert ran.code == 2
        assert ran.out == ""
        assert ran.err.count("\n") == 1
    assert [one.read_bytes() for one in (sound, manifest, text)] == before
    aligncap("caption", sound, "--transcript", text, "--plot", text, "--overwrite").refused(
        "t.html: is what this command reads"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--segments", "--resume", "-o", "x.jsonl"), "goes without --resume"),
        (("--segments", "--candidates", "2"), "--candidates"),
        (("--segments", "--style", "short"), "--style"),
        (("--segments-as", "srt", "--per", "folder"), "--per"),
        (("--segments", "--per", "speaker"), "--segments knows --per file"),
        (("--segments", "--per", "file", "--baseline", __file__), "give one of them"),
        (("--segments", "--evidence"), "--format jsonl"),
        (("--segments-as", "srt", "--evidence"), "--format jsonl"),
        (("--channels", "split"), "--segments"),
        (("--segments", "-o", "x.html", "--format", "jsonl", "--plot", "./x.html"), "name two"),
        (("--segments", "-o", "x.doc"), "x.doc"),
        (("--transcript", "absent.srt"), "absent.srt"),
        (("--transcript", __file__), "has no times"),
    ],
)
def test_what_does_not_go_together_is_one_line(aligncap, call, options, message):
    aligncap("caption", call, *options).refused(message)


def test_subtitles_are_of_one_recording_and_of_a_file(aligncap, call, tmp_path):
    for option in ("srt", "vtt", "textgrid", "labels"):
        aligncap("caption", call, call.parent / "b.wav", "--segments-as", option).refused(
            "2 recordings"
        )
    output = tmp_path / "there.srt"
    output.write_text("years of work")
    aligncap("caption", call, "--segments", "-o", output).refused("there.srt")
    assert output.read_text() == "years of work"
    assert aligncap("caption", call, "--segments", "-o", output, "--overwrite").code == 0
    assert len(list(srt.parse(output.read_text("utf-8"), ignore_errors=False))) == 5
    ran = aligncap("caption", "-", "--segments", stdin=call.read_bytes())
    assert ran.code == 1
    assert "give a path" in ran.err
