"""The validation report's tables, counted by hand over captions nobody generated."""

from pathlib import Path

import pytest

from aligncap.clues import clue_of
from aligncap.data.manifest import Utterance
from aligncap.experiments.validation import (
    LABELLED,
    Captioned,
    claim_lines,
    distinct_line,
    emotion_table,
    gender_lines,
)
from aligncap.values import EMOTIONS, Caption, Evidence, Verdict


def said(
    text: str,
    *,
    label: str = "sad",
    gender: str | None = "female",
    likeliest: str = "sad",
    claims: tuple[tuple[str, str, Verdict], ...] = (),
) -> Captioned:
    evidence = tuple(Evidence(clue_of(trait, meaning), verdict, "measured")
                     for trait, meaning, verdict in claims)  # fmt: skip
    caption = Caption(
        text=text, language="zh" if text > "一" else "en", duration_s=1.0, evidence=evidence,
        emotion={name: 0.9 if name == likeliest else 0.0 for name in EMOTIONS}, arousal=None,
        valence=None, gender=None, pitch=None, loudness=None, pace=None, confidence=0.9,
        log_probability=-1.0, model="made up",
    )  # fmt: skip
    return Captioned(Utterance("x", Path("x.wav"), emotion=label, gender=gender), caption)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("text", ["She sounds sad.", "她听起来很悲伤。"])
def test_the_emotion_is_read_in_the_captions_language(text):
    assert said(text).emotion == "sad"


def test_the_emotion_table_tells_words_from_probabilities_and_lists_rivals():
    rows = [
        said("She sounds sad."),
        said("She sounds happy.", likeliest="sad"),
        said("She sounds angry.", label="angry", likeliest="sad"),
    ]
    table = emotion_table(
        dict.fromkeys(LABELLED, rows), {("emodb", "rbf"): ["sad", "sad", "angry"]}, "mini"
    )
    found = {tuple(cells(line)[:2]): cells(line) for line in table[2:]}
    assert len(found) == 2 * len(LABELLED) + 1
    # Named: sad 1 of 2, angry 1 of 1. Likeliest: sad 2 of 2, angry 0 of 1.
    assert found["emodb", "mini, named in its caption"][2:4] == ["3", "0.750"]
    assert found["emodb", "mini, likeliest emotion"][2:4] == ["3", "0.500"]
    assert found["emodb", "eGeMAPS + SVM (rbf)"][3:] == ["1.000", "1.000–1.000"]


def test_a_stated_gender_is_right_or_wrong_and_an_unstated_one_neither():
    right = ("gender", "female", Verdict.SUPPORTED)
    wrong = ("gender", "male", Verdict.CONTRADICTED)
    rows = [
        said("…", claims=(right,)),
        said("…", claims=(right,)),
        said("…", claims=(wrong,)),
        said("…"),
        said("…", gender=None, claims=(wrong,)),
    ]
    nobody = {corpus: [] for corpus in LABELLED}
    lines = gender_lines({**nobody, "ased": rows})
    found = {cells(line)[0]: cells(line)[1:] for line in lines[2:]}
    assert found["ased"] == ["4", "75.0%", "0.667"]
    assert found["all"] == ["4", "75.0%", "0.667"]
    assert found["nemo"] == ["0", "0.0%", "–"]


def test_claims_are_counted_by_trait_and_verdict():
    rows = [
        said(
            "…",
            claims=(("pitch", "high", Verdict.SUPPORTED), ("volume", "loud", Verdict.CANNOT_TELL)),
        ),
        said(
            "…",
            claims=(("pitch", "low", Verdict.CONTRADICTED), ("pitch", "high", Verdict.SUPPORTED)),
        ),
        said("…", claims=(("emotion", "sad", Verdict.CONTRADICTED),)),
    ]
    found = {cells(line)[0]: cells(line)[1:] for line in claim_lines(rows)[2:]}
    assert found == {
        "pitch": ["3", "66.7%", "33.3%", "0.0%"],
        "volume": ["1", "0.0%", "0.0%", "100.0%"],
        "pace": ["0", "0.0%", "0.0%", "0.0%"],
        "all three": ["4", "50.0%", "25.0%", "25.0%"],
    }


def test_variety_is_counted_over_evenly_chosen_clips():
    rows = [said(f"Caption {n // 2}.") for n in range(1000)]
    assert distinct_line(rows, "English") == "Distinct captions (English): 500 over 500 clips."
    assert distinct_line(rows[:10], "English") == "Distinct captions (English): 5 over 10 clips."
