"""Nothing is scored wrongly in silence: languages that differ, labels that are unknown, recordings
that are not there. Each score says what it leaves out, in every form of the report.
"""

import json
from pathlib import Path

import pytest

from aligncap.errors import DataError
from aligncap.metrics.evaluation import (
    Resampling,
    evaluate,
    in_language,
    majority_language,
    markdown_table,
    read_references,
    report_page,
    text_table,
)
from aligncap.metrics.scores import MetricOptions, ScoredClip
from cli.conftest import Aligncap
from support.corpora import lines

EN = ["A sad woman speaks slowly.", "An angry man shouts loudly.", "A happy girl talks."]
ZH = ["一名女性悲伤地慢慢说话。", "一名男性愤怒地大声喊叫。", "一个女孩开心地说话。"]
SAID = {
    "en": ["A sad woman speaks.", "A man shouts.", "A girl."],
    "zh": ["女性悲伤。", "男性喊叫。", "女孩。"],
}
QUICK = ("--metrics", "bleu1,cider-d,clue-f1,emotion-recall", "--draws", "5")


def clip(name: str, said: str, *references: str, **more: object) -> ScoredClip:
    return ScoredClip(name, said, references, **more)


def files(folder: Path, said: list[str], references: list[dict]) -> tuple[str | Path, ...]:
    hypotheses = [json.dumps({"id": str(n), "caption": text}) for n, text in enumerate(said)]
    rows = [json.dumps({"id": str(n), **row}) for n, row in enumerate(references)]
    return (
        *("--hypotheses", lines(folder / "h.jsonl", *hypotheses)),
        *("--references", lines(folder / "r.jsonl", *rows)),
    )


def scores(aligncap: Aligncap, *arguments: object) -> dict[str, dict]:
    ran = aligncap("evaluate", *arguments, "--format", "json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("first", [True, False])
def test_only_references_of_the_scored_language_take_part(
    aligncap: Aligncap, tmp_path: Path, language: str, *, first: bool
) -> None:
    own, other = (EN, ZH) if language == "en" else (ZH, EN)
    alone = [{"captions": [text]} for text in own]
    mixed = [
        {"captions": [a, b] if first else [b, a]} for a, b in zip(own, other, strict=True)
    ]  # fmt: skip
    expected = scores(aligncap, *files(tmp_path, SAID[language], alone), *QUICK)
    found = scores(aligncap, *files(tmp_path, SAID[language], mixed), *QUICK)
    name = {"en": "English", "zh": "Chinese"}[language]
    for metric, row in found.items():
        assert row.pop("notes") == [f"3 of 6 references left out: they are not in {name}"]
        assert row == expected[metric]


def test_a_clip_without_a_reference_in_the_language_is_left_out() -> None:
    clips = [clip("a", EN[0], EN[0]), clip("b", EN[1], ZH[1])]
    ([scored], notes) = in_language([clips], "en")
    assert [one.id for one in scored] == ["a"]
    assert notes[0] == "1 of 2 clips left out, clip 'b': it has no reference in English"


@pytest.mark.parametrize(("said", "written"), [(EN, ZH), (ZH, EN)])
def test_captions_of_one_language_against_references_of_another_are_refused(
    aligncap: Aligncap, tmp_path: Path, said: list[str], written: list[str]
) -> None:
    given = files(tmp_path, said, [{"captions": [text]} for text in written])
    aligncap("evaluate", *given, *QUICK).refused("none of the 3 references is in it; give")


def test_captions_in_another_language_than_asked_for_are_noted(
    aligncap: Aligncap, tmp_path: Path
) -> None:
    given = files(tmp_path, [EN[0], ZH[1], ZH[2]], [{"captions": [text]} for text in EN])
    ran = aligncap("evaluate", *given, *QUICK, "--language", "en")
    assert ran.code == 0
    note = "2 of 3 captions are not in English, and are scored as they are"
    assert f"note: {note}\n" in ran.out
    assert note in aligncap("evaluate", *given, *QUICK, "--language=en", "--format=json").err


def test_the_language_is_that_of_the_captions() -> None:
    assert majority_language([clip("a", ZH[0], EN[0], EN[1])]) == "zh"
    assert majority_language([clip("a", "", EN[0], EN[1], ZH[0])]) == "en"
    assert majority_language([clip("a", "…", ZH[0])]) == "zh"


@pytest.mark.parametrize("label", ["excited", "other", "xxx", "nan", "unknown"])
def test_an_unknown_label_blocks_only_the_metric_that_needs_it(
    aligncap: Aligncap, tmp_path: Path, label: str
) -> None:
    rows = [{"captions": [text], "emotion": label} for text in EN]
    given = files(tmp_path, SAID["en"], rows)
    found = scores(aligncap, *given)
    assert found["bleu1"]["value"] > 0
    assert found["emotion-recall"]["value"] is None
    (note,) = found["emotion-recall"]["notes"]
    assert note.startswith("no score: 3 of 3 clips left out, such as '0': its emotion is")
    assert label in note
    assert all("notes" not in row for name, row in found.items() if name.startswith("clue"))


@pytest.mark.parametrize("label", ["Sad", "SAD", "sadness", "Sadness"])
def test_a_label_is_known_however_it_is_written(tmp_path: Path, label: str) -> None:
    row = json.dumps({"id": "a", "captions": ["x"], "emotion": label})
    clips = read_references(lines(tmp_path / "r.jsonl", row)).clips
    assert clips["a"].emotion == "sad"


def test_clips_with_an_unknown_label_are_no_wrong_answers() -> None:
    known = clip("a", "A sad man.", "A man.", emotion="sad")
    unknown = clip("b", "A sad man.", "A man.", emotion="excited")
    (result,) = evaluate(
        [known, unknown], ["emotion-recall"], MetricOptions(), resampling=Resampling(draws=5)
    )
    assert result.score.value == 100
    assert "|n:1|" in result.score.signature
    assert result.notes[0].startswith("1 of 2 clips left out, clip 'b': its emotion is 'excited'")


def test_recordings_that_are_not_there_leave_only_the_signals_scores_absent(
    aligncap: Aligncap, tmp_path: Path, example_clips: list[Path]
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    names = ["gone.wav", "broken.wav", None]
    rows = [{"captions": [t], "file": f} for t, f in zip(EN, names, strict=True)]
    given = files(tmp_path, SAID["en"], rows)
    found = scores(aligncap, *given)
    signal = found["hallucination-signal"]
    assert signal["value"] is signal["low"] is None
    assert signal["notes"][0].startswith("no score: 3 of 3 clips left out, such as '0': ")
    assert "gone.wav: does not exist" in signal["notes"][0]
    assert found["bleu1"]["value"] > 0
    # One that can be heard is enough; the others count neither as right nor as wrong.
    rows[2]["file"] = str(example_clips[0])
    given = files(tmp_path, ["", "", "It is whispered."], rows)
    signal = scores(aligncap, *given)["hallucination-signal"]
    assert signal["value"] is not None
    assert signal["notes"][0].startswith("2 of 3 clips left out, such as '0': ")
    assert "|n:1|" in signal["signature"]


def test_a_score_that_was_asked_for_and_cannot_be_is_an_exit_code(
    aligncap: Aligncap, tmp_path: Path
) -> None:
    given = files(tmp_path, SAID["en"], [{"captions": [text]} for text in EN])
    ran = aligncap("evaluate", *given, "--metrics", "bleu1,hallucination-signal")
    assert ran.code == 1
    assert ran.out.count("no recording to judge by") == 1
    assert float(ran.out.split("bleu1")[1].split()[0]) > 0


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_every_form_of_the_report_says_what_is_left_out(form: str) -> None:
    clips = [clip("a<b", "A sad man.", "A man.", emotion="excited"), clip("c", "Sad.", "Sad.")]
    notes = ("3 references left out",)
    names = ["bleu1", "emotion-recall"]
    results = list(
        evaluate(clips, names, MetricOptions(), resampling=Resampling(draws=5), notes=notes)
    )
    if form == "html":
        text = report_page(results, [], heading="h", language="en", folder=Path())
        assert "<li>emotion-recall: 1 of 2 clips left out, clip &#x27;a&lt;b&#x27;" in text
    else:
        text = {"table": text_table, "markdown": markdown_table}[form](results, "h")
        assert "emotion-recall: 1 of 2 clips left out, clip 'a<b': its emotion is 'exc" in text
    assert text.count(notes[0]) == 1


def test_the_baseline_is_scored_on_the_same_references(aligncap: Aligncap, tmp_path: Path) -> None:
    rows = [{"captions": [a, b]} for a, b in zip(EN, ZH, strict=True)]
    given = files(tmp_path, SAID["en"], rows)
    rival = [json.dumps({"id": str(n), "caption": text}) for n, text in enumerate(ZH)]
    found = scores(aligncap, *given, *QUICK, "--baseline", lines(tmp_path / "b.jsonl", *rival))
    assert found["bleu1"]["baseline"]["value"] < 1e-9
    note = "3 of 3 captions of the baseline are not in English, and are scored as they are"
    assert note in found["bleu1"]["notes"]


@pytest.mark.parametrize("captions", [[" "], ["A man.", "\t"], ["\u3000"]])
def test_a_blank_reference_is_refused(tmp_path: Path, captions: list[str]) -> None:
    row = json.dumps({"id": "a", "captions": captions})
    with pytest.raises(DataError, match=r"r\.jsonl:1: one of its 'captions' is blank"):
        read_references(lines(tmp_path / "r.jsonl", row))


def test_ids_may_be_whole_numbers(aligncap: Aligncap, tmp_path: Path) -> None:
    hypotheses = lines(tmp_path / "h.jsonl", '{"id": 0, "caption": "A sad man."}')
    references = lines(tmp_path / "r.jsonl", '{"id": "0", "captions": ["A sad man."]}')
    given = ("--hypotheses", hypotheses, "--references", references, *QUICK)
    assert scores(aligncap, *given)["bleu1"]["value"] == pytest.approx(100)
