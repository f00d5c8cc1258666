"""The paper's figures as numbers: what each of them draws, of the finished runs and nothing else.

    figure2, figure8   alignments by BLEU@4, METEOR and ROUGE-L, in each setting that has them
    figure3            what the language model makes of speech and of text, aligned before and after
                       decoding: points of t-SNE, and distances measured in all dimensions
    figure7            the same clips by all systems, with the verdict on each clue
    figure9            more preference pairs, and more steps

`experiments.plots` draws them; DIR/figures/NAME.json keeps them.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.audio import load
from aligncap.clues import find_clues
from aligncap.clues.evidence import ClaimStatus, ClipKnowledge
from aligncap.clues.grammar import lemmas
from aligncap.errors import DataError, UnknownNameError
from aligncap.experiments.runs import StoredRun
from aligncap.experiments.statistics import (
    ALIGNMENT_NAMES,
    estimate,
    matches,
    setting_text,
    settings,
)
from aligncap.metrics.scores import interval, mean_of_clips
from aligncap.prosody import measure
from aligncap.storage import hash_of
from aligncap.values import EMOTIONS, Clue, Facts

Figure = dict[str, Any]
"""JSON: "name", "title", "caption", "panels" or "clips", "notes"."""

Floats = NDArray[np.float64]

SHOWN = {"bleu4": "BLEU@4", "meteor": "METEOR", "rouge_l": "ROUGE-L"}
"""The metrics of figures 2, 8 and 9."""

STATES_FILE = "states.npz"
"""Of a run: "speech" and "text" [clips, width], "ids"."""

_INTERVAL = (
    "Mean over seeds, × 100; lines are 95 % intervals over clips and seeds together, dots are "
    "single seeds."
)
_PAPER = "The paper gives no numbers of this figure in its text, so none stand beside these."


@dataclass(frozen=True, slots=True)
class Places:
    """Where runs and recordings are."""

    out: Path
    """The folder of `aligncap reproduce`."""
    data: Path
    """The corpora's recordings lie below it."""


Maker = Callable[[Sequence[StoredRun], Places], Figure]


def figure_of(name: str, runs: Sequence[StoredRun], out: Path, data: Path) -> Figure:
    """What a figure draws. UnknownNameError for a name that is none of `FIGURES`, DataError where
    no run that it needs is finished."""
    if name not in FIGURES:
        raise UnknownNameError("figure", name, FIGURES)
    figure = FIGURES[name](runs, Places(out, data))
    if not (figure.get("panels") or figure.get("clips")):
        raise DataError(f"{name}: none of its runs is finished in {out}; run aligncap reproduce")
    return {"name": name, **figure}


def _alignments(names: Iterable[str], title: str) -> Maker:
    wanted = {key: ALIGNMENT_NAMES[key] for key in names}

    def made(runs: Sequence[StoredRun], _: Places) -> Figure:
        panels = []
        for setting, own in settings(runs).items():
            arms = {
                label: [
                    run for run in own if matches(run, {"system": "AlignCap", "alignment": key})
                ]
                for key, label in wanted.items()
            }
            known = {label: some for label, some in arms.items() if some}
            if len(known) > 1:
                panels += [
                    {
                        "setting": setting_text(setting),
                        "metric": shown,
                        "points": [_point(key, some, name=label) for label, some in known.items()],
                    }
                    for key, shown in SHOWN.items()
                ]
        return {"title": title, "caption": f"{title}. {_INTERVAL} {_PAPER}", "panels": panels}

    return made


def _point(metric: str, runs: Sequence[StoredRun], **more: object) -> dict[str, Any]:
    found = estimate(metric, runs)
    own = {run.seed: estimate(metric, [run], draws=0).value for run in runs}
    return {
        **more,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "sd": found.sd,
        "seeds": {str(seed): own[seed] for seed in sorted(own)},
        "clips": found.clips,
    }


def _pairs_and_steps(runs: Sequence[StoredRun], _: Places) -> Figure:
    panels = []
    title = "More preference pairs (left) and more steps (right) of preference optimisation"
    for setting, own in settings(runs).items():
        for axis, label in (("pairs", "preference pairs"), ("steps", "optimiser steps")):
            by_value: dict[int, list[StoredRun]] = {}
            for run in own:
                point = run.table.get("point") or {}
                if list(point) == [axis]:
                    by_value.setdefault(int(point[axis]), []).append(run)
            start = [run for run in own if matches(run, {"system": "AlignCap", "alignment": "kd"})]
            if by_value and start:
                by_value.setdefault(0, start)
            if len(by_value) > 1:
                panels += [
                    {
                        "setting": setting_text(setting),
                        "metric": shown,
                        "axis": label,
                        "points": [_point(key, by_value[at], at=at) for at in sorted(by_value)],
                    }
                    for key, shown in SHOWN.items()
                ]
    caption = f"{title}; 0 is the model after KD. {_INTERVAL} {_PAPER}"
    return {"title": title, "caption": caption, "panels": panels}


# Figure 3.


def states_of(run: StoredRun, places: Places) -> Mapping[str, NDArray[Any]] | None:
    """The states of a run's clips, read from its folder or made now and kept there; None where its
    model is not here any more."""
    path = run.folder / STATES_FILE
    if not path.exists():
        model = places.out / run.table["model"] if run.table.get("model") else None
        if model is None or not model.is_dir():
            return None
        from aligncap.alignment.states import Reading, answers

        clips = [
            Reading(places.data / row["audio"], row["references"][0])
            for row in run.captions
            if row["references"]
        ]
        ids = [row["id"] for row in run.captions if row["references"]]
        language = run.table["language"]
        found = answers(model, clips, language=language, teacher=_teacher_of(model))
        partial = path.with_name(f".{path.name}")
        with partial.open("wb") as file:
            np.savez_compressed(file, ids=ids, speech=found.speech, text=found.text)
        partial.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _teacher_of(model: Path) -> Path | None:
    """The model that read the text prompts when this one was distilled; None of any other."""
    path = model.parent / "recipe.json"
    if not path.is_file():
        return None
    settings = json.loads(path.read_text("utf-8")).get("settings", {})
    teacher = (settings.get("teacher") or {}).get("model")
    found = teacher or (settings.get("model") or {}).get("start")
    return Path(found) if settings.get("teacher") and found and Path(found).is_dir() else None


def _speech_and_text(runs: Sequence[StoredRun], places: Places) -> Figure:
    panels = []
    for setting, own in settings(runs).items():
        for key, when in (("cl", "before decoding"), ("kd", "after decoding")):
            arm = [run for run in own if matches(run, {"system": "AlignCap", "alignment": key})]
            arm.sort(key=lambda run: run.seed)
            known = [(run, states_of(run, places)) for run in arm]
            found = [
                (run, states)
                for run, states in known
                if states is not None and len(states["speech"]) > 1
            ]
            if found:
                panels.append(
                    {
                        "setting": setting_text(setting),
                        "name": f"aligned {when} ({ALIGNMENT_NAMES[key]})",
                        "seed": found[0][0].seed,
                        "measures": {
                            str(run.seed): distances(states["speech"], states["text"])
                            for run, states in found
                        },
                        "points": embedded(found[0][1]["speech"], found[0][1]["text"]),
                        "clips": len(found[0][1]["speech"]),
                    }
                )
    title = "What the language model makes of speech and of text"
    return {
        "title": title,
        "caption": (
            f"{title}: mean last hidden states of its own answers to the same clips as speech and "
            "as text, by t-SNE (perplexity 30 or fewer, seed 0); a line joins the two of a clip. "
            "t-SNE keeps neighbours, not distances: those are measured in all dimensions. MMD² is "
            "unbiased, with a Gaussian kernel of the median distance; recall@1 is how often the "
            "nearest text is the clip's own; silhouette is of the two modalities (0: mixed)."
        ),
        "panels": panels,
    }


def distances(speech: NDArray[Any], text: NDArray[Any], *, shuffles: int = 200) -> dict[str, Any]:
    """How far the states of speech and of text of the same clips, each [clips, width], are apart,
    all dimensions standardised together.

    mmd2          unbiased squared maximum mean discrepancy; `mmd2_p` by shuffling which is which
    recall_at_1   share of clips whose nearest text (by cosine) is their own, with its interval;
                  `chance` is one in so many clips
    silhouette    of the modalities: 1 apart, 0 mixed
    """
    both = _standardised(speech, text)
    count = len(speech)
    squared = _squared_distances(both)
    width = float(np.median(squared[np.triu_indices(2 * count, 1)]))
    kernel = np.exp(-squared / width) if width > 0 else np.ones_like(squared)
    is_text = np.repeat([False, True], count)
    value = _mmd2(kernel, is_text)
    random = np.random.default_rng(0)
    shuffled = [_mmd2(kernel, random.permutation(is_text)) for _ in range(shuffles)]
    hits = nearest_is_own(both[:count], both[count:])
    low, high = interval(mean_of_clips(hits))
    return {
        "mmd2": value,
        "mmd2_p": (1 + sum(one >= value for one in shuffled)) / (1 + shuffles),
        "recall_at_1": float(hits.mean()),
        "recall_low": low,
        "recall_high": high,
        "chance": 1 / count,
        "silhouette": silhouette(np.sqrt(squared), is_text),
    }


def _standardised(speech: NDArray[Any], text: NDArray[Any]) -> Floats:
    both = np.concatenate([speech, text]).astype(np.float64)
    spread = both.std(axis=0)
    found: Floats = (both - both.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return found


def _squared_distances(points: Floats) -> Floats:
    squares = (points**2).sum(axis=1)
    found: Floats = squares[:, None] + squares[None] - 2 * points @ points.T
    np.fill_diagonal(found, 0.0)
    return np.maximum(found, 0.0)


def _mmd2(kernel: Floats, second: NDArray[np.bool_]) -> float:
    """Of the points that are `second` and the others; at least two of each."""

    def within(own: NDArray[np.bool_]) -> float:
        block, count = kernel[np.ix_(own, own)], int(own.sum())
        return float(block.sum() - np.trace(block)) / (count * (count - 1))

    between = float(kernel[np.ix_(second, ~second)].mean())
    return within(second) + within(~second) - 2 * between


def nearest_is_own(speech: Floats, text: Floats) -> Floats:
    """Whether no other text is nearer to a clip's speech than its own, by cosine. [clips]"""
    one, other = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12)
        for each in (speech, text)
    )
    likeness = one @ other.T
    best: Floats = (np.diag(likeness) >= likeness.max(axis=1) - 1e-9).astype(np.float64)
    return best


def silhouette(distance: Floats, second: NDArray[np.bool_]) -> float:
    """The mean over points of (b - a) / max(a, b): a, b are the mean distances to the others of
    their own and to those of the other group."""
    found = []
    for number, own in enumerate(second):
        same = second == own
        same[number] = False
        a, b = distance[number, same].mean(), distance[number, second != own].mean()
        found.append((b - a) / max(a, b, 1e-12))
    return float(np.mean(found))


def embedded(speech: NDArray[Any], text: NDArray[Any]) -> dict[str, list[list[float]]]:
    """Both in two dimensions, by t-SNE."""
    from sklearn.manifold import TSNE

    both = _standardised(speech, text)
    perplexity = min(30.0, (len(both) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(both)
    rounded = np.round(found.astype(np.float64), 3)
    return {"speech": rounded[: len(speech)].tolist(), "text": rounded[len(speech) :].tolist()}


# Figure 7.

PREFERRED = ("neutral", "surprised", "angry", "sad")
"""The emotions of the clips that are shown, where there are any; the first three as in the
paper."""

LISTED: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("HTSAT-BART", {"system": "HTSAT-BART"}),
    ("NoAudioCap", {"system": "NoAudioCap"}),
    ("SECap", {"system": "SECap"}),
    ("SECap-PO", {"system": "SECap", "preference": "po"}),
    ("AlignCap-KD", {"system": "AlignCap", "alignment": "kd"}),
    ("AlignCap-KD-RLHF", {"system": "AlignCap", "alignment": "kd", "preference": "rlhf"}),
    ("AlignCap-KD-PO", {"system": "AlignCap", "alignment": "kd", "preference": "po"}),
)
"""The systems of figure 7, in the order of Table 1."""


def _same_clips(runs: Sequence[StoredRun], places: Places) -> Figure:
    clips = []
    for setting, own in settings(runs).items():
        found = [
            (name, min(some, key=lambda run: run.seed))
            for name, wanted in _listed(own)
            if (some := [run for run in own if matches(run, wanted)])
        ]
        if len(found) > 1:
            clips += list(_shown_clips(setting_text(setting), found, places.data))
    title = "The same clips by all systems"
    return {
        "title": title,
        "caption": (
            f"{title}, first seed. Clips are not chosen by what was written of them: of each "
            "emotion the first by a hash of the clips' names. Blue: a clue that the clip's label, "
            "the measured signal or a reference bears out; red: one that they contradict; grey: "
            "one that none of them bears out."
        ),
        "clips": clips,
    }


def _listed(runs: Iterable[StoredRun]) -> list[tuple[str, Mapping[str, Any]]]:
    """Those of `LISTED`, and after them every other system that there is."""
    known = {str(wanted["system"]) for _, wanted in LISTED}
    others = dict.fromkeys(str(run.system) for run in runs if run.system not in known)
    return [*LISTED, *((name, {"system": name}) for name in others)]


def _shown_clips(
    setting: str, found: Sequence[tuple[str, StoredRun]], data: Path
) -> Iterator[dict[str, Any]]:
    rows = {name: {row["id"]: row for row in run.captions} for name, run in found}
    first = found[0][1]
    for row in chosen_clips(first.captions):
        language = first.table["language"]
        audio = data / row["audio"]
        facts = measure(load(audio)) if row["audio"] and audio.is_file() else None
        knowledge = knowledge_of(row, language, facts)
        yield {
            "setting": setting,
            "id": row["id"],
            "audio": row["audio"],
            "language": language,
            "emotion": row["emotion"],
            "captions": [
                {
                    "system": name,
                    "seed": run.seed,
                    "text": rows[name][row["id"]]["caption"],
                    "clues": judged_clues(rows[name][row["id"]]["caption"], language, knowledge),
                }
                for name, run in found
                if row["id"] in rows[name]
            ],
        }


def chosen_clips(
    rows: Sequence[Mapping[str, Any]], count: int = len(PREFERRED)
) -> list[Mapping[str, Any]]:
    """One clip of each of so many emotions, the preferred first, whatever was written of them."""
    by_hash = sorted(rows, key=lambda row: hash_of(str(row["id"])))
    found: dict[Any, Mapping[str, Any]] = {}
    for row in by_hash:
        found.setdefault(row["emotion"], row)
    order = [*PREFERRED, *(one for one in EMOTIONS if one not in PREFERRED)]
    labelled = [found[emotion] for emotion in order if emotion in found]
    # Without labels (captions by people): the first by the hash.
    return labelled[:count] or list(by_hash[:count])


def knowledge_of(row: Mapping[str, Any], language: str, facts: Facts | None) -> ClipKnowledge:
    """What the claims of a clip's captions are checked against."""
    label = row["emotion"] if row["emotion"] in EMOTIONS else None
    return ClipKnowledge.of(facts, emotion=label, captions={language: row["references"]})


VERDICTS: Mapping[ClaimStatus, str] = {
    ClaimStatus.SUPPORTED: "right",
    ClaimStatus.CONTRADICTED: "wrong",
    ClaimStatus.UNSUPPORTED: "not borne out",
    ClaimStatus.UNVERIFIABLE: "not borne out",
}


def judged_clues(text: str, language: str, knowledge: ClipKnowledge) -> list[dict[str, Any]]:
    """The clues of a caption, each with its place in the text and its verdict."""
    clues = find_clues(text, language, repeats=True)
    judged = []
    for clue, span in zip(clues, clue_spans(text, clues, language), strict=True):
        checked = knowledge.check(clue)
        judged.append(
            {
                "word": clue.word,
                "trait": clue.trait,
                "start": span[0],
                "end": span[1],
                "verdict": VERDICTS[checked.status],
                "reason": checked.reason,
            }
        )
    return judged


def clue_spans(text: str, clues: Sequence[Clue], language: str) -> list[tuple[int, int]]:
    """Where each clue's word stands in the text, in order, none twice; (0, 0) where it does not
    stand there as it is written."""
    words = list(_words(text, language))
    taken: set[int] = set()
    found = []
    for clue in clues:
        if language == "zh":
            found.append(_chinese_span(text, clue.word, taken))
        else:
            found.append(_english_span(words, clue.word.replace("-", " ").split(), taken))
    return found


def _words(text: str, language: str) -> Iterator[tuple[int, int, frozenset[str]]]:
    for match in re.finditer(r"[^\W\d_]+", text) if language == "en" else ():
        yield match.start(), match.end(), frozenset(lemmas(match.group().lower()))


def _english_span(
    words: Sequence[tuple[int, int, frozenset[str]]], parts: Sequence[str], taken: set[int]
) -> tuple[int, int]:
    for first in range(len(words) - len(parts) + 1):
        places = range(first, first + len(parts))
        if taken.isdisjoint(places) and all(
            part in words[at][2] for part, at in zip(parts, places, strict=True)
        ):
            taken.update(places)
            return words[first][0], words[first + len(parts) - 1][1]
    return 0, 0


def _chinese_span(text: str, word: str, taken: set[int]) -> tuple[int, int]:
    """As it is written, or with an adverb in it ("语速很快" of 语速快)."""
    for between in ("", ".{0,3}?"):
        for match in re.finditer(between.join(map(re.escape, word)), text):
            if taken.isdisjoint(range(*match.span())):
                taken.update(range(*match.span()))
                return match.span()
    return 0, 0


FIGURES: Mapping[str, Maker] = {
    "figure2": _alignments(("none", "cl", "cl+proj"), "Alignments before decoding"),
    "figure3": _speech_and_text,
    "figure7": _same_clips,
    "figure8": _alignments(
        ("none", "cl", "cl+ni", "cl+proj", "kd"), "Alignments before and after decoding"
    ),
    "figure9": _pairs_and_steps,
}
"""Name → what it draws of runs."""
