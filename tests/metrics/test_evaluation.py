"""An evaluation: hypotheses and references read, with the line that names each mistake; which
metrics, in which order, with a baseline; as text and markdown, to the letter; and as a page: what
it shows, in which order, and that nothing breaks out of it."""

import math
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from aligncap.errors import DataError, MissingModelError, UnknownNameError
from aligncap.metrics import evaluation
from aligncap.metrics.evaluation import (
    ClipAnalysis,
    MetricResult,
    Resampling,
    clips_of,
    default_metrics,
    evaluate,
    majority_language,
    read_hypotheses,
    read_references,
    with_splits,
)
from aligncap.metrics.scores import (
    DEFAULT_METRICS,
    METRICS,
    SET_METRICS,
    ClaimCache,
    Difference,
    MetricOptions,
    Score,
    ScoredClip,
    SmallSample,
)

GOOD = '{"id": "good", "caption": "Sad.", "captions": ["Sad."]}'


def written(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_clips_come_in_the_order_of_the_references(tmp_path) -> None:
    said = ('{"id": "b", "caption": "女。"}', "", '{"id": "a", "caption": "", "x": 1}')
    meant = '{"id": "a", "captions": ["Sad.", "Low."], "file": "deep/a.wav", "emotion": "sadness"}'
    hypotheses = written(tmp_path, "h.jsonl", *said)
    references = written(tmp_path, "r.jsonl", meant, '\ufeff{"id": "b", "captions": ["女性。"]}')
    assert clips_of(read_hypotheses(hypotheses), read_references(references)) == [
        ScoredClip("a", "", ("Sad.", "Low."), tmp_path / "deep" / "a.wav", "sad"),
        ScoredClip("b", "女。", ("女性。",)),
    ]


def test_what_caption_writes_is_read_by_the_stem_of_its_file(tmp_path) -> None:
    said = '{"file": "clips/one.two.wav", "caption": "Sad.", "clues": []}'
    failed = '{"file": "clips/b.wav", "error": "clips/b.wav: nobody speaks in it"}'
    meant = ('{"id": "b", "captions": ["B."]}', '{"file": "one.two.ogg", "captions": ["A."]}')
    found = read_hypotheses(written(tmp_path, "h.jsonl", said, failed))
    clips = clips_of(found, read_references(written(tmp_path, "r.jsonl", *meant)))
    assert found.failed == 1
    assert [(clip.id, clip.hypothesis) for clip in clips] == [("b", ""), ("one.two", "Sad.")]


H, R = "hypotheses", "references"
READ = {H: read_hypotheses, R: read_references}
X = '{"id": "x", '
NO_CAPTIONS = "has no 'captions'; write a list of at least one text"


@pytest.mark.parametrize(
    ("kinds", "line", "message"),
    [
        ((H, R), '{"caption": "x", "captions": ["x"]}', "has no 'id'; name the clip"),
        ((H, R), '{"id": [3], "caption": "x", "captions": ["x"]}',
         "'id' is [3]; write it as text in quotes"),
        ((H, R), GOOD,
         "clip 'good' is in line 1 already; keep one of the two, or give each line its id"),
        ((H, R), "[1]", "holds a list; write one JSON object a line"),
        ((H, R), '{"id": "x"', "not JSON (Expecting ',' delimiter); write one object a line"),
        ((H, R), X + '"n": NaN}', "holds NaN, which is not JSON; write a number or null"),
        ((H, R), "[" * 100_000, "not JSON that can be read; write one object a line"),
        ((H, R), X.encode() + b'"caption": "\xe9"}', "not UTF-8; save the {} as UTF-8"),
        ((H,), '{"id": "x"}', "has no 'caption'; write \"\" where the system said nothing"),
        ((H,), X + '"caption": ["x"]}', "'caption' is ['x']; write it as text in quotes"),
        ((H,), X + '"caption": null}', "'caption' is None; write it as text in quotes"),
        ((H,), X + '"caption": "a \\ud83d"}',
         "holds half of a surrogate pair ('\\ud83d'); write the whole one"),
        ((R,), '{"id": "x"}', NO_CAPTIONS),
        ((R,), X + '"captions": []}', NO_CAPTIONS),
        ((R,), X + '"captions": "Sad."}', "'captions' is 'Sad.'; write a list of texts"),
        ((R,), X + '"captions": ["a", ""]}', "'captions' is ['a', '']; write a list of texts"),
        ((R,), X + '"captions": ["a"], "file": 1}', "'file' is 1; write it as text in quotes"),
        ((R,), X + '"captions": ["a", " "]}', "one of its 'captions' is blank; remove it"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_and_line(tmp_path, kinds, line, message) -> None:
    for kind in kinds:
        path = tmp_path / f"{kind}.jsonl"
        line = line if isinstance(line, bytes) else line.encode()
        path.write_bytes(b"\n".join([GOOD.encode(), b"", line, GOOD.encode()]))
        with pytest.raises(DataError) as caught:
            READ[kind](path)
        assert str(caught.value) == f"{path}:3: {message.format(kind)}"


@pytest.mark.parametrize("kind", READ)
def test_a_file_that_is_empty_or_cannot_be_read(tmp_path, kind) -> None:
    path = tmp_path / "f.jsonl"
    for content, message in (
        (b"", f"the {kind} are empty; write one JSON object a line"),
        (b"\n  \n", f"the {kind} are empty; write one JSON object a line"),
        (GOOD.encode("utf-16"), f"not UTF-8; save the {kind} as UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            READ[kind](path)
        assert str(caught.value) == f"{path}:1: {message}"
    for name in ("absent.jsonl", "."):
        with pytest.raises(DataError, match="cannot read the"):
            READ[kind](tmp_path / name)


def test_a_clip_that_is_in_one_file_only(tmp_path) -> None:
    both = written(tmp_path, "both.jsonl", GOOD, '{"id": "a", "caption": "", "captions": ["A."]}')
    one = written(tmp_path, "one.jsonl", GOOD)
    for said, meant, message in (
        (both, one, f"clip 'a' has no reference in {one}; add one or remove the line"),
        (one, both, f"clip 'a' has no hypothesis in {one}; add one (\"caption\": \"\" where the "
         "system said nothing) or remove the line"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            clips_of(read_hypotheses(said), read_references(meant))
        assert str(caught.value) == f"{both}:2: {message}"


TEXTS = {
    "A sad woman speaks slowly.": "A sad woman speaks slowly.",
    "An angry man shouts.": "A happy man speaks quietly.",
    "": "A woman whispers in fear.",
}
CLIPS = [ScoredClip(str(n), said, (meant,)) for n, (said, meant) in enumerate(TEXTS.items())]
SAME = [ScoredClip(clip.id, clip.references[0], clip.references) for clip in CLIPS]
SILENT = [ScoredClip(clip.id, "", clip.references) for clip in CLIPS]
FEW = Resampling(draws=50)


def scores(clips: list[ScoredClip], names=DEFAULT_METRICS) -> dict[str, float]:
    results = evaluate(clips, names, MetricOptions(), resampling=FEW)
    return {one.score.name: one.score.value for one in results}


def test_what_is_equal_is_100_what_says_nothing_is_0_and_order_does_not_matter() -> None:
    best, worst = scores(SAME), scores(SILENT)
    # At their best, these are not 100 on every set.
    unbound = ("cider", "cider-d", "meteor", "distinct2")
    expected = {n: 0 if n in ("hallucination", "repeated") else 100 for n in DEFAULT_METRICS}
    expected |= {name: best[name] for name in unbound}
    assert {name: best[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    nothing = dict.fromkeys(DEFAULT_METRICS, 0) | {"repeated": 100 * 2 / 3}
    assert {name: worst[name] for name in nothing} == pytest.approx(nothing, abs=1e-4)
    assert scores(CLIPS[::-1]) == pytest.approx(scores(CLIPS), nan_ok=True)


def test_each_metric_has_a_score_with_interval_and_signature_and_a_baseline() -> None:
    names = ["distinct2", "clue-f1", "hallucination/pitch"]
    results = list(evaluate(SAME, names, MetricOptions(), resampling=FEW, baseline=CLIPS))
    assert [one.score.name for one in results] == names
    distinct, f1, pitch = results
    assert (distinct.score.low, distinct.difference) == (None, None)
    assert distinct.score.signature.startswith("distinct2:of-set|tok:coco-en|refs:1|n:3|")
    assert distinct.baseline is not None
    signature = "clue-f1:micro+nearest|lang:en|refs:1|n:3|boot:50|seed:0|"
    assert f1.score.signature.startswith(signature)
    assert f1.baseline.low <= f1.baseline.value <= f1.baseline.high
    assert f1.difference.delta == pytest.approx(100 - f1.baseline.value)
    assert (pitch.score.low, pitch.score.high) == (None, None)  # no caption is about pitch


def test_the_papers_way_is_given_where_asked_for() -> None:
    clips = [ScoredClip(str(n), "A sad man.", ("A sad man.",)) for n in range(30)]
    few = Resampling(draws=10, paper25=True)
    f1, distinct = evaluate(clips, ["clue-f1", "distinct1"], MetricOptions(), resampling=few)
    assert (f1.paper25.mean, f1.paper25.sd, distinct.paper25) == (100, 0, None)


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("clue-f2", UnknownNameError, "did you mean 'clue-f1'"),
        ("hallucination/pitsch", UnknownNameError, "did you mean 'hallucination/pitch'"),
        ("zzz", UnknownNameError, "known: [^/]*hallucination-signal[^/]*$"),  # not every trait
        ("similarity", MissingModelError, "give its folder by --encoder"),
    ],
)
def test_what_cannot_be_opened_is_an_error_before_anything_is_measured(name, error, line) -> None:
    clip = ScoredClip("c", "Loud.", ("Loud.",), file=Path("absent.wav"))
    with pytest.raises(error, match=line):
        next(evaluate([clip], ["hallucination-signal", name], MetricOptions(), resampling=FEW))


def test_which_metrics_and_language_clips_have_by_default() -> None:
    recorded = [ScoredClip("a", "", ("A.",), file=Path("a.wav"))]
    assert "hallucination-signal" in default_metrics(recorded)
    assert "hallucination-signal" in default_metrics([*recorded, *CLIPS])
    assert default_metrics(CLIPS) == list(DEFAULT_METRICS)
    assert set(DEFAULT_METRICS) <= METRICS.keys() | SET_METRICS.keys()
    found = with_splits(["clue-f1", "hallucination", "hallucination/pitch", "clue-f1"])
    assert found[:3] == ["clue-f1", "hallucination", "hallucination/emotion"]
    assert len(found) == len(set(found)) == 10
    assert with_splits(["hallucination/pitch", "clue-f1", "hallucination"])[:9] == found[:9]
    alone = ["hallucination/pitch", "clue-f1", "hallucination-signal/pitch"]
    assert with_splits(alone) == alone
    chinese = [ScoredClip("a", "", ("她很高兴。", "高兴的女性。"))]
    assert majority_language(chinese) == "zh"
    assert majority_language([*chinese, *CLIPS]) == "en"


F1 = MetricResult(score=Score("clue-f1", 70.125, 60.0, 81.5, "clue-f1|n:2"))
WHOLE = MetricResult(score=Score("hallucination", 70.125, 60.0, 81.5, "hallucination|n:2"))
PITCH = MetricResult(score=Score("hallucination/pitch", math.nan, None, None, "pitch|n:2"))


def test_a_table_for_a_terminal_and_a_comparison_in_markdown() -> None:
    assert evaluation.text_table([WHOLE, PITCH], "Two clips").splitlines() == [
        "Two clips",
        "",
        "metric         score   95 % interval",
        "hallucination  70.12  60.00 to 81.50",
        "  pitch            –               –",
        "",
        "hallucination|n:2",
    ]
    full = MetricResult(
        score=WHOLE.score,
        baseline=Score("hallucination", 65.0, 55.0, 75.0, "hallucination|n:2"),
        difference=Difference("hallucination", 5.0, -1.0, 11.0, 0.0004, "hallucination|n:2"),
        paper25=SmallSample("hallucination", 69.5, 4.25, "hallucination|draws:100x25"),
    )
    unknown = MetricResult(
        score=PITCH.score,
        baseline=PITCH.score,
        difference=Difference("hallucination/pitch", math.nan, None, None, 1.0, "x"),
        paper25=SmallSample("hallucination/pitch", math.nan, math.nan, "x"),
    )
    assert evaluation.markdown_table([full, unknown], "Two systems").splitlines() == [
        "Two systems",
        "",
        "| metric | score | 95 % interval | baseline | difference | 95 % interval | p "
        "| 25 clips, mean ± sd |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| hallucination | 70.12 | 60.00 to 81.50 | 65.00 | +5.00 | -1.00 to 11.00 | <0.001 "
        "| 69.50 ± 4.25 |",
        "| &emsp;pitch | – | – | – | – | – | – | – |",
        "",
        "- `hallucination|n:2`",
        "- `hallucination|draws:100x25`",
    ]


def test_metrics_by_trait_asked_for_alone_have_their_names_and_signatures() -> None:
    names = ["hallucination/pitch", "hallucination-signal/pitch"]
    results = list(evaluate(CLIPS, names, MetricOptions(), resampling=FEW))
    shown = evaluation.text_table(results, "Three clips").splitlines()
    assert [line.split()[0] for line in shown[3:5]] == names
    assert [line.partition(":")[0] for line in shown[-2:]] == names
    columns = evaluation.headings(results)
    assert [row[0] for row in evaluation.rows_of(results, columns)] == names
    # The whole of another metric is not theirs.
    results = list(evaluate(CLIPS, ["hallucination", names[1]], MetricOptions(), resampling=FEW))
    assert evaluation.rows_of(results, columns)[1][0] == names[1]
    assert len(evaluation.signatures(results)) == 2


def test_what_rounds_to_nothing_has_no_sign_of_less() -> None:
    result = MetricResult(
        score=Score("clue-f1", -1e-9, -0.004, 0.004, "x"),
        baseline=Score("clue-f1", 0.0, 0.0, 0.0, "x"),
        difference=Difference("clue-f1", -1e-9, -0.004, 0.004, 1.0, "x"),
    )
    columns = evaluation.headings([result])
    (found,) = evaluation.rows_of([result], columns)
    assert found[1:] == ["0.00", "0.00 to 0.00", "0.00", "+0.00", "0.00 to 0.00", "1.000"]


class Elements(HTMLParser):
    """Every element with its attributes, and the text; that elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def analysis(hypothesis: str, *references: str, name="c", file=None, signal=False) -> ClipAnalysis:
    clip = ScoredClip(name, hypothesis, references, file)
    return evaluation.analyse(clip, "en", ClaimCache(), signal=signal)


def page(*clips: ClipAnalysis, folder: Path = Path("/reports"), heading="Heading") -> Elements:
    how = {"heading": heading, "language": "en", "folder": folder}
    return Elements(evaluation.report_page([F1], evaluation.worst_first(clips), **how))


def test_claims_are_sorted_by_how_they_stand() -> None:
    said, meant = "A happy woman speaks fast, not loudly.", "A sad woman speaks slowly."
    one = analysis(said, meant, "It is loud.")
    meanings = {
        kind: [f"{'not ' * clue.negated}{clue.meaning}" for clue in getattr(one, kind)]
        for kind in ("found", "contradicted", "invented", "missed")
    }
    contradicted = ["happy", "fast", "not loud"]
    assert meanings == {
        "found": ["female"], "contradicted": contradicted, "invented": [], "missed": ["sad", "slow"]
    }  # fmt: skip
    assert one.f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))


def test_the_worst_come_first() -> None:
    pairs = {
        "right": ("A sad man.", "A sad man."),
        "silent": ("Hello.", "Goodbye."),
        "half": ("A sad man.", "A loud man."),
        "against": ("A happy man.", "A sad man."),
        "wrong": ("A loud man.", "A sad woman."),
    }
    ordered = evaluation.worst_first([analysis(*pair, name=n) for n, pair in pairs.items()])
    assert [one.clip.id for one in ordered] == ["wrong", "against", "half", "right", "silent"]


def test_it_shows_captions_clues_scores_and_measurements(example_clips) -> None:
    found = page(analysis("A happy woman, trembling.", "A sad woman speaks slowly.", name="clip-7"))
    for shown in (
        "clip-7", "A happy woman, trembling.", "A sad woman speaks slowly.", "F1 of clues",
        "✓ woman gender", "○ slow", "+ trembling voice quality", "✗ happy emotion",
        "Found", "Missed", "Invented", "Against a reference",
        "clue-f1 70.12 60.00 to 81.50", "clue-f1|n:2",
    ):  # fmt: skip
        assert shown in found.text
    assert "Nothing was said." in page(analysis(" ", "Sad.")).text
    slow = next(file for file in example_clips if file.stem == "man-low-flat-slow-quiet")
    heard = analysis("He speaks very loudly.", "Speech.", file=slow, signal=True)
    found = page(heard, folder=slow.parent)
    assert "Against the recording" in found.text
    assert "LUFS" in found.text
    assert found.named("audio")[0]["src"] == "man-low-flat-slow-quiet.ogg"


EVIL = "</article><script>alert('x')</script> & \"sad\" <img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    "evil", [EVIL, "\u202e\u0000\ud83d", "{{7*7}} ${x} %s", "<!--", "</style>"]
)
def test_nothing_breaks_out_of_it(evil, tmp_path) -> None:
    file = tmp_path / f"{evil.replace('/', '').replace(chr(0), '')}.wav"
    found = page(analysis(evil, evil, name=evil, file=file), folder=tmp_path, heading=evil)
    assert found.named("script") == found.named("img") == []
    assert {name for tag, attributes in found.found for name in attributes} <= {
        "aria-hidden", "aria-label", "charset", "class", "content", "controls", "href",
        "http-equiv", "id", "lang", "name", "preload", "role", "scope", "src", "tabindex",
    }  # fmt: skip
    if "\ud83d" not in evil:
        assert unquote(found.named("audio")[0]["src"] or "") == file.name
        assert " ".join(evil.split()) in found.text


def test_it_loads_nothing_but_recordings() -> None:
    files = {"a": Path("/clips/a b#1?.wav"), "b": Path("/clips/b.aiff")}
    found = page(*(analysis("Sad.", "Sad.", name=name, file=file) for name, file in files.items()))
    assert found.named("link") == []
    assert [one["src"] for one in found.named("audio")] == ["../clips/a%20b%231%3F.wav"]
    assert [one["href"] for one in found.named("a")] == ["#clips", "../clips/b.aiff"]
    (policy,) = (one for one in found.named("meta") if "http-equiv" in one)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_a_large_set_is_cut_and_the_rest_counted() -> None:
    shown = evaluation.SHOWN
    clips = [analysis("Sad.", "Sad.", name=f"c{n}") for n in range(shown + 25)]
    found = page(*clips)
    assert len(found.named("article")) == shown
    assert f"The worst {shown} of {shown + 25} clips; the other 25 are left out." in found.text
    assert "All 3 clips." in page(*clips[:3]).text
