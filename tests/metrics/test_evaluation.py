"""Reading hypotheses and references, with the line that names each mistake; and an evaluation of a
few clips: which metrics, in which order, with a baseline."""

from pathlib import Path

import pytest

from aligncap.errors import DataError, MissingModelError, UnknownNameError
from aligncap.metrics.evaluation import (
    Resampling,
    clips_of,
    default_metrics,
    evaluate,
    majority_language,
    read_hypotheses,
    read_references,
    with_splits,
)
from aligncap.metrics.scores import DEFAULT_METRICS, METRICS, SET_METRICS, MetricOptions, ScoredClip

GOOD = '{"id": "good", "caption": "Sad.", "captions": ["Sad."]}'


def written(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_clips_come_in_the_order_of_the_references(tmp_path):
    hypotheses = written(
        tmp_path,
        "h.jsonl",
        '{"id": "b", "caption": "女。"}',
        "",
        '{"id": "a", "caption": "", "x": 1}',
    )
    references = written(
        tmp_path,
        "r.jsonl",
        '{"id": "a", "captions": ["Sad.", "Unhappy."], "file": "deep/a.wav", "emotion": "sadness"}',
        '\ufeff{"id": "b", "captions": ["女性。"]}',
    )
    assert clips_of(read_hypotheses(hypotheses), read_references(references)) == [
        ScoredClip("a", "", ("Sad.", "Unhappy."), tmp_path / "deep" / "a.wav", "sad"),
        ScoredClip("b", "女。", ("女性。",)),
    ]


def test_what_caption_writes_is_read_by_the_stem_of_its_file(tmp_path):
    hypotheses = written(
        tmp_path,
        "h.jsonl",
        '{"file": "clips/one.two.wav", "caption": "Sad.", "clues": []}',
        '{"file": "clips/b.wav", "error": "clips/b.wav: nobody speaks in it"}',
    )
    references = written(
        tmp_path,
        "r.jsonl",
        '{"id": "b", "captions": ["B."]}',
        '{"file": "one.two.ogg", "captions": ["A."]}',
    )
    found = read_hypotheses(hypotheses)
    assert found.failed == 1
    clips = clips_of(found, read_references(references))
    assert [(clip.id, clip.hypothesis) for clip in clips] == [("b", ""), ("one.two", "Sad.")]


MISTAKES = [
    ('{"caption": "x", "captions": ["x"]}', "has no 'id'; name the clip"),
    ('{"id": 3, "caption": "x", "captions": ["x"]}', "'id' is 3; write it as text in quotes"),
    (GOOD, "clip 'good' is in line 1 already; keep one of the two"),
    ("[1]", "holds a list; write one JSON object a line"),
    ('{"id": "x"', "not JSON (Expecting ',' delimiter); write one object a line"),
    ('{"id": "x", "n": NaN}', "holds NaN, which is not JSON; write a number or null"),
    ("[" * 100_000, "not JSON that can be read; write one object a line"),
]


@pytest.mark.parametrize("read", [read_hypotheses, read_references])
@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake_names_file_and_line(tmp_path, read, line, message):
    path = written(tmp_path, "f.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:3: {message}"


@pytest.mark.parametrize("read", [read_hypotheses, read_references])
def test_a_file_that_is_empty_or_cannot_be_read(tmp_path, read):
    what = "hypotheses" if read is read_hypotheses else "references"
    files = {
        "none.jsonl": (b"", f":1: the {what} are empty; write one JSON object a line"),
        "blank.jsonl": (b"\n  \n", f":1: the {what} are empty; write one JSON object a line"),
        "latin.jsonl": (
            GOOD.encode() + '\n{"id": "é"}'.encode("latin-1"),
            f":2: not UTF-8; save the {what} as UTF-8",
        ),
        "wide.jsonl": (GOOD.encode("utf-16"), f":1: not UTF-8; save the {what} as UTF-8"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}{message}"
    for name in ("absent.jsonl", "."):
        with pytest.raises(DataError, match="cannot read the"):
            read(tmp_path / name)


H, R = read_hypotheses, read_references


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (H, '{"id": "x"}', "has no 'caption'; write \"\" where the system said nothing"),
        (H, '{"id": "x", "caption": ["x"]}', "'caption' is ['x']; write it as text in quotes"),
        (H, '{"id": "x", "caption": null}', "'caption' is None; write it as text in quotes"),
        (
            H,
            '{"id": "x", "caption": "a \\ud83d"}',
            "holds half of a surrogate pair ('\\ud83d'); write the whole one",
        ),
        (R, '{"id": "x"}', "has no 'captions'; write a list of at least one text"),
        (R, '{"id": "x", "captions": []}', "has no 'captions'; write a list of at least one text"),
        (R, '{"id": "x", "captions": "Sad."}', "'captions' is 'Sad.'; write a list of texts"),
        (R, '{"id": "x", "captions": ["a", ""]}', "'captions' is ['a', '']; write a list of texts"),
        (R, '{"id": "x", "captions": ["a"], "file": 1}', "'file' is 1; write it as text in quotes"),
        (
            R,
            '{"id": "x", "captions": ["a"], "emotion": "joy"}',
            "x: emotion is 'joy', must be one of angry, bored, disgusted, fearful, happy, neutral, "
            "sad, surprised",
        ),
    ],
)
def test_a_mistake_of_one_kind_of_file(tmp_path, read, line, message):
    path = written(tmp_path, "f.jsonl", line)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:1: {message}"


def test_a_clip_that_is_in_one_file_only(tmp_path):
    both = written(tmp_path, "both.jsonl", GOOD, '{"id": "a", "caption": "", "captions": ["A."]}')
    one = written(tmp_path, "one.jsonl", GOOD)
    with pytest.raises(DataError) as caught:
        clips_of(read_hypotheses(both), read_references(one))
    assert str(caught.value) == (
        f"{both}:2: clip 'a' has no reference in {one}; add one or remove the line"
    )
    with pytest.raises(DataError) as caught:
        clips_of(read_hypotheses(one), read_references(both))
    assert str(caught.value) == (
        f"{both}:2: clip 'a' has no hypothesis in {one}; "
        'add one ("caption": "" where the system said nothing) or remove the line'
    )


TEXTS = [
    ("A sad woman speaks slowly.", "A sad woman speaks slowly."),
    ("An angry man shouts.", "A happy man speaks quietly."),
    ("", "A woman whispers in fear."),
]
CLIPS = [ScoredClip(str(n), said, (reference,)) for n, (said, reference) in enumerate(TEXTS)]
SAME = [ScoredClip(clip.id, clip.references[0], clip.references) for clip in CLIPS]
SILENT = [ScoredClip(clip.id, "", clip.references) for clip in CLIPS]
FEW = Resampling(draws=50)

AT_BEST_0 = ("hallucination", "repeated")
UNBOUND = ("cider", "cider-d", "meteor", "distinct2")
"""At their best, they are not 100 on every set."""


def scores(clips: list[ScoredClip], names=DEFAULT_METRICS) -> dict[str, float]:
    results = evaluate(clips, names, MetricOptions(), resampling=FEW)
    return {one.score.name: one.score.value for one in results}


def test_what_is_equal_is_100_and_what_says_nothing_is_0():
    best, worst = scores(SAME), scores(SILENT)
    for name in DEFAULT_METRICS:
        if name in AT_BEST_0:
            assert best[name] == 0
        elif name not in UNBOUND:
            assert best[name] == pytest.approx(100, abs=1e-4), name
        if name != "repeated":
            assert worst[name] == pytest.approx(0, abs=1e-4), name
    assert worst["repeated"] == pytest.approx(100 * 2 / 3)


def test_the_order_of_clips_does_not_matter():
    assert scores(CLIPS[::-1]) == pytest.approx(scores(CLIPS), nan_ok=True)


def test_each_metric_has_a_score_with_interval_and_signature_and_a_baseline():
    names = ["distinct2", "clue-f1", "hallucination/pitch"]
    results = list(evaluate(SAME, names, MetricOptions(), resampling=FEW, baseline=CLIPS))
    assert [one.score.name for one in results] == names
    distinct, f1, pitch = results
    assert distinct.score.low is None
    assert distinct.score.signature.startswith("distinct2:of-set|tok:coco-en|refs:1|n:3|")
    assert distinct.baseline is not None
    assert distinct.difference is None
    signature = "clue-f1:micro+nearest|lang:en|refs:1|n:3|boot:50|seed:0|"
    assert f1.score.signature.startswith(signature)
    assert f1.baseline.low <= f1.baseline.value <= f1.baseline.high
    assert f1.difference.delta == pytest.approx(100 - f1.baseline.value)
    assert (pitch.score.low, pitch.score.high) == (None, None)  # no caption is about pitch


def test_the_papers_way_is_given_where_asked_for():
    clips = [ScoredClip(str(n), "A sad man.", ("A sad man.",)) for n in range(30)]
    few = Resampling(draws=10, paper25=True)
    f1, distinct = evaluate(clips, ["clue-f1", "distinct1"], MetricOptions(), resampling=few)
    assert (f1.paper25.mean, f1.paper25.sd) == (100, 0)
    assert distinct.paper25 is None


@pytest.mark.parametrize(
    ("name", "error"), [("clue-f2", UnknownNameError), ("similarity", MissingModelError)]
)
def test_what_cannot_be_opened_is_an_error_before_anything_is_measured(name, error):
    clip = ScoredClip("c", "Loud.", ("Loud.",), file=Path("absent.wav"))
    with pytest.raises(error):
        next(evaluate([clip], ["hallucination-signal", name], MetricOptions(), resampling=FEW))


def test_an_unknown_name_is_answered_with_the_nearest_and_without_every_trait():
    with pytest.raises(UnknownNameError, match="did you mean 'clue-f1'"):
        scores(CLIPS, ["clue-f2"])
    with pytest.raises(UnknownNameError, match="known: ") as caught:
        scores(CLIPS, ["zzz"])
    assert "hallucination-signal" in str(caught.value)
    assert "/" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="did you mean 'hallucination/pitch'"):
        scores(CLIPS, ["hallucination/pitsch"])


def test_which_metrics_and_language_clips_have_by_default():
    recorded = [ScoredClip("a", "", ("A.",), file=Path("a.wav"))]
    assert "hallucination-signal" in default_metrics(recorded)
    assert default_metrics([*recorded, *CLIPS]) == list(DEFAULT_METRICS)
    assert set(DEFAULT_METRICS) <= METRICS.keys() | SET_METRICS.keys()
    found = with_splits(["clue-f1", "hallucination", "hallucination/pitch", "clue-f1"])
    assert found[:3] == ["clue-f1", "hallucination", "hallucination/emotion"]
    assert len(found) == len(set(found)) == 10
    chinese = [ScoredClip("a", "", ("她很高兴。", "高兴的女性。"))]
    assert majority_language(chinese) == "zh"
    assert majority_language([*chinese, *CLIPS]) == "en"
