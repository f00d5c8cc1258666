"""The report of made-up runs: its verdicts, its parts, and what a browser makes of it."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from aligncap.experiments.figures import judged_clues, knowledge_of
from aligncap.experiments.plots import draw
from aligncap.experiments.report import marked, write_report
from aligncap.experiments.runs import read_runs
from support.browser import open_browser, opened
from support.reproduced import write_run, written_captions

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
PLAYED = """one => new Promise((done) => {
  one.addEventListener("timeupdate", () => one.currentTime > 0.1 && done());
  one.play();
})"""
COMMAND = "aligncap reproduce all --scale small"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, example_clips: list[Path]) -> Path:
    out, data = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("data")
    for seed in range(2):
        for alignment, right in {"cl": 0.3, "kd": 1.0}.items():
            captions = written_captions(right, seed=seed)
            write_run(out, f"{alignment}.{seed}", captions, seed=seed, alignment=alignment)
        captions = written_captions(1.0)
        write_run(out, f"po.{seed}", captions, seed=seed, preference="po")
        markup = {clip: (emotion, "<b>loud</b> & sad") for clip, (emotion, _) in captions.items()}
        write_run(out, f"secap.{seed}", markup, seed=seed, system="SECap", alignment="")
    for clip in captions:
        shutil.copy(example_clips[0], data / f"{clip}.wav")
    for name in ("figure7", "figure8"):
        draw(name, read_runs(out), out, data)
    table = {
        "table": "table1",
        "sections": [
            {
                "title": "in-domain",
                "paper": "EMOSEC",
                "rows": [
                    {
                        "name": "SECap",
                        "difference": False,
                        "metrics": {
                            **dict.fromkeys(
                                ("meteor", "rouge_l", "cider", "spice", "aes_c", "aes_s"), EMPTY
                            ),
                            "bleu4": {
                                **EMPTY,
                                "value": 12.34,
                                "low": 10,
                                "high": 14,
                                "paper": "7.4",
                            },
                            "emotion_recall": EMPTY,
                        },
                    }
                ],
            }
        ],
        "notes": ["SPICE blank: <none>"],
    }
    (out / "tables").mkdir()
    (out / "tables" / "table1.json").write_text(json.dumps(table), "utf-8")
    return write_report(read_runs(out), out, data, command=COMMAND)


EMPTY = dict.fromkeys(("value", "low", "high", "sd", "p", "against", "paper"))


def test_the_verdicts_are_written(report: Path) -> None:
    tables = report.parent / "tables"
    found = json.loads((tables / "orderings.json").read_text("utf-8"))
    verdicts = {(one["ordering"], one["metric"]): one["verdict"] for one in found["judged"]}
    assert verdicts["KD-PO above SECap", "emotion_recall"] == "holds"
    assert verdicts["KD-PO above KD", "bleu4"] == "cannot tell"
    assert any(name.startswith("SECap-PO above SECap (§4.3") for name in found["missing"])
    with (tables / "orderings.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["judged"])
    page = (tables / "orderings.md").read_text("utf-8")
    assert f"Made by `{COMMAND}`" in page
    assert "| KD-PO above SECap | §4.3, Table 1; 2 seeds, 12 clips | " in page
    assert "| holds: +100.0 [+100.0, +100.0]; p < 0.001, Holm 0.0" in page


def test_the_page_is_whole_and_made_again_alike(report: Path) -> None:
    text = report.read_text("utf-8")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert text.count("<audio") == 4
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    again = write_report(read_runs(report.parent), report.parent, Path(), command=COMMAND)
    silent = again.read_text("utf-8")
    assert "<audio" not in silent
    assert len(silent) < len(text)
    report.write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Angrily, a man shouts in a loud voice.", "en"),
        ("Somebody speaks.", "en"),
        ("悲伤的女声，语速很慢。", "zh"),
    ],
)
def test_a_caption_is_shown_once_whatever_its_first_word_says(text: str, language: str) -> None:
    known = knowledge_of({"emotion": "sad", "references": ("A woman sounds sad.",)}, "en", None)
    caption = {"text": text, "clues": judged_clues(text, language, known)}
    unseen = re.sub(r'<span class="unseen".*?</span>', "", marked(caption))
    assert re.sub("<[^>]*>", "", unseen).partition(" · ")[0] == text


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, PHONE])
def test_a_browser_shows_it_without_a_network(report: Path, options: dict[str, object]) -> None:
    with (
        open_browser() as browser,
        opened(browser, offline=True, **options) as (page, complaints),
    ):
        page.goto(report.as_uri())
        assert page.locator("h1").inner_text() == "The paper’s comparison, run again"
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
        page.locator("audio").first.evaluate(PLAYED)
        assert page.locator("mark.wrong").count() > 0
        assert page.locator("td.paper").all_inner_texts() == ["7.4"]
        names = page.locator("audio").evaluate_all("all => all.map(o => o.ariaLabel)")
        assert all(names)
        assert complaints == []
