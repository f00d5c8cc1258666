"""Captions of the validation speakers, scored: what the model card and the README report. Also the
measures of captions with their confidence intervals and the SVM baseline that other tables use.

    python -m aligncap.experiments.validation --model mini --data ../shared/data/speech \
        --split validation

Every speaker is one that the model was never trained on (`data.splits.split_of`).

The baseline needs no captioner: openSMILE's eGeMAPS functionals and a support vector machine,
trained and tested on the same speakers as the captioner, corpus by corpus; the penalty is chosen by
cross-validation over training speakers. It needs the `dev` extra.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import aligncap
from aligncap.audio.files import load
from aligncap.captioner.checkpoint import find_model, model_fingerprint, read_meta, write_meta
from aligncap.captioner.preparing import Spoken
from aligncap.clues import emotion_of, find_clues, judge
from aligncap.clues.evidence import ClaimStatus, ClipKnowledge, claims_of, without_composure
from aligncap.data.captions import write_captions
from aligncap.data.manifest import Utterance, read_manifest, trusted_gender
from aligncap.data.splits import split_of
from aligncap.errors import MissingModelError, NoSpeechError, UnknownNameError
from aligncap.experiments import Page, write_page
from aligncap.metrics.claims import macro_recall
from aligncap.metrics.scores import (
    Floats,
    Metric,
    MetricOptions,
    ScoredClip,
    Statistics,
    difference,
    open_metric,
)
from aligncap.preference.candidates import RowClip
from aligncap.storage import atomic_file
from aligncap.values import RATE_HZ, Caption, Verdict


def bootstrap_interval(
    truth: Sequence[str], named: Sequence[str | None], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of macro recall over clips drawn with replacement, class by
    class, so that every class stays as large as it is."""
    rng = np.random.default_rng(seed)
    hits = np.array([a == b for a, b in zip(truth, named, strict=True)])
    labels = np.array(truth)
    recalls = np.zeros(draws)
    classes = np.unique(labels)
    for label in classes:
        own = hits[labels == label]
        picks = rng.integers(0, len(own), (draws, len(own)))
        recalls += own[picks].mean(axis=1)
    low, high = np.percentile(recalls / len(classes), [2.5, 97.5])
    return float(low), float(high)


REFERENCES, REFERENCE_SEED = 5, 1009
"""Captions that a clip is scored against, and their seed: training rows have others."""

Counted = Callable[[ScoredClip], tuple[float, float]]
"""Of a clip: a part, and the whole that it is a part of."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part over a whole, both summed over clips."""

    name: str
    counted: Counted
    scale: float = 100.0

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return self.name

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        rows = np.array([self.counted(clip) for clip in clips], dtype=np.float64)
        return Statistics(rows, _share, scale=self.scale)


@dataclass(frozen=True, slots=True)
class OverRuns:
    """A metric of several runs together: a hypothesis has a line for each run.

    What is counted of a clip is added up over its runs, so a bootstrap draws clips, not captions:
    runs with other seeds are no new clips.
    """

    metric: Metric

    @property
    def name(self) -> str:
        """As `Metric`."""
        return self.metric.name

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.metric.variant}|over runs"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        by_run = [clip.hypothesis.split("\n") for clip in clips]
        runs = [
            self.metric.measure(
                [
                    replace(clip, hypothesis=texts[run])
                    for clip, texts in zip(clips, by_run, strict=True)
                ]
            )
            for run in range(len(by_run[0]))
        ]
        total = np.sum([one.per_clip for one in runs], axis=0)
        return replace(runs[0], per_clip=total)


def measures(
    known: Mapping[str, ClipKnowledge], *, language: str, tokens: Callable[[str], int]
) -> list[Metric]:
    """Everything that is reported, for clips whose ids are keys of `known`.

    contradicted by the signal    of the claims that the signal can tell of: the hallucination rate
    not borne out                 of all claims, those that labels, signal and people contradict,
                                  or that none of them bears out
    contradicted                  of all claims, those that they contradict
    names an emotion, clues a caption, tokens a caption: who says less errs less
    """
    options = MetricOptions(language=language)

    def against_signal(clip: ScoredClip) -> tuple[float, float]:
        facts = known[clip.id].facts
        assert facts is not None
        evidence = judge(find_clues(clip.hypothesis, language), facts)
        found = Counter(one.verdict for one in evidence)
        wrong = found[Verdict.CONTRADICTED]
        return wrong, wrong + found[Verdict.SUPPORTED]

    def checked(clip: ScoredClip, *wrong: ClaimStatus) -> tuple[float, float]:
        claims = without_composure(claims_of(find_clues(clip.hypothesis, language)))
        found = [known[clip.id].check(clue).status for clue in claims.values()]
        return sum(status in wrong for status in found), len(found)

    def names_emotion(clip: ScoredClip) -> tuple[float, float]:
        return emotion_of(find_clues(clip.hypothesis, language)) is not None, 1

    unborne = (ClaimStatus.CONTRADICTED, ClaimStatus.UNSUPPORTED, ClaimStatus.UNVERIFIABLE)
    return [
        Share("contradicted by the signal", against_signal),
        Share("not borne out", lambda clip: checked(clip, *unborne)),
        Share("contradicted", lambda clip: checked(clip, ClaimStatus.CONTRADICTED)),
        *(open_metric(name, options) for name in ("emotion-recall", "cider-d", "clue-f1")),
        Share("names an emotion", names_emotion),
        Share("clues a caption", lambda clip: (checked(clip)[1], 1), scale=1.0),
        Share("tokens a caption", lambda clip: (tokens(clip.hypothesis), 1), scale=1.0),
    ]


def _share(sums: Floats) -> Floats:
    part, whole = np.moveaxis(sums, -1, 0)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def scored(
    clips: Sequence[RowClip], runs: Sequence[Sequence[str]], *, language: str
) -> list[ScoredClip]:
    """The clips with a line of each run, and references that no model has been trained on."""
    found = []
    for one, texts in zip(clips, zip(*runs, strict=True), strict=True):
        references = write_captions(
            one.utterance,
            one.clip.facts,
            language=language,
            count=REFERENCES,
            seed=REFERENCE_SEED,
        )
        found.append(
            ScoredClip(
                one.clip.utterance, "\n".join(texts), tuple(references), emotion=one.clip.emotion
            )
        )
    return found


def tables(
    metrics: Sequence[Metric],
    clips: Sequence[RowClip],
    captions: Mapping[str, Sequence[Sequence[str]]],
    *,
    language: str,
) -> list[str]:
    """Markdown: each arm's mean ± sd over its runs, then paired differences to the first arm."""
    lines = [f"| | {' | '.join(captions)} |", "|" + " --- |" * (len(captions) + 1)]
    for metric in metrics:
        cells = []
        for runs in captions.values():
            every = [metric.measure(scored(clips, [run], language=language)) for run in runs]
            values = [one.scale * one.value for one in every]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.2f}{spread}")
        lines.append(f"| {metric.name} | {' | '.join(cells)} |")
    distinct = [
        f"{np.mean([100 * len(set(run)) / len(run) for run in runs]):.2f}"
        for runs in captions.values()
    ]
    lines.append(f"| distinct captions | {' | '.join(distinct)} |")
    first, *others = captions
    runs_of = {name: scored(clips, runs, language=language) for name, runs in captions.items()}
    heads = [f"{name} less {first}" for name in others]
    lines += ["", f"| difference | {' | '.join(heads)} |", "|" + " --- |" * (len(others) + 1)]
    for metric in metrics:
        cells = []
        for name in others:
            delta = difference(OverRuns(metric), runs_of[name], runs_of[first])
            bounds = f"{delta.low:+.2f} … {delta.high:+.2f}" if delta.low is not None else "–"
            cells.append(f"{delta.delta:+.2f} [{bounds}]")
        lines.append(f"| {metric.name} | {' | '.join(cells)} |")
    return lines


KERNELS = ("linear", "rbf")
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

Functionals = NDArray[np.float64]


def functionals(utterances: Sequence[Utterance], cache: Path) -> Functionals:
    """eGeMAPSv02 functionals, shape [utterances, 88]; those in `cache` (.npz) are not measured
    again. Raises MissingModelError without openSMILE."""
    try:
        import opensmile
    except ModuleNotFoundError as error:
        raise MissingModelError(
            "eGeMAPS needs openSMILE, which is not installed: pip install 'aligncap[dev]'"
        ) from error
    known: dict[str, Functionals] = {}
    if cache.exists():
        with np.load(cache, allow_pickle=False) as stored:
            known = dict(zip(stored["names"].tolist(), stored["values"], strict=True))
    missing = [one for one in utterances if str(one.path) not in known]
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    for one in track(missing, "eGeMAPS", console=Console(stderr=True), disable=not missing):
        known[str(one.path)] = smile.process_signal(load(one.path).samples, RATE_HZ).to_numpy()[0]
    if missing:
        with atomic_file(cache, "wb") as file:
            np.savez(file, names=np.array(list(known)), values=np.stack(list(known.values())))
    return np.stack([known[str(one.path)] for one in utterances])


def svm_answers(
    train: Sequence[Utterance],
    train_values: Functionals,
    test_values: Functionals,
    *,
    kernel: str,
) -> list[str]:
    """The emotion that a support vector machine names for each test row."""
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    labels = np.array([one.emotion for one in train])
    speakers = np.array([one.speaker for one in train])
    machine = make_pipeline(StandardScaler(), SVC(kernel=kernel, class_weight="balanced"))
    search = GridSearchCV(
        machine,
        {"svc__C": _PENALTIES},
        scoring="balanced_accuracy",
        cv=GroupKFold(min(5, len(set(speakers.tolist())))),
    )
    search.fit(train_values, labels, groups=speakers)
    answers: list[str] = search.predict(test_values).tolist()
    return answers


LABELLED = ("ravdess", "emodb", "ased", "nemo", "emovo", "uem_es", "turev_db", "iesc")
"""Corpora with labels, on which a classifier can be trained."""
CORPORA = (*LABELLED, "secap")
SPLITS = ("validation", "test")
MEASURED_TRAITS = ("pitch", "volume", "pace")
DISTINCT_OVER = 500


@dataclass(frozen=True, slots=True)
class Captioned:
    """A validation clip with the model's caption of it."""

    utterance: Utterance
    caption: Caption

    @property
    def emotion(self) -> str | None:
        """The category that the sentence names."""
        return emotion_of(find_clues(self.caption.text, self.caption.language))

    @property
    def stated_gender(self) -> str | None:
        """The gender that the sentence states."""
        for evidence in self.caption.evidence:
            if evidence.clue.trait == "gender" and not evidence.clue.negated:
                return evidence.clue.meaning
        return None


def by_corpus(rows: Sequence[Captioned]) -> dict[str, list[Captioned]]:
    """The rows of each corpus."""
    return {c: [row for row in rows if row.utterance.corpus == c] for c in CORPORA}


def emotion_row(
    name: str, system: str, clips: int, truth: list[str], named: list[str | None]
) -> str:
    """One row of the emotion table: macro recall with its 95 % interval."""
    low, high = bootstrap_interval(truth, named)
    value = macro_recall(truth, named)
    return f"| {name} | {system} | {clips} | {value:.3f} | {low:.3f}–{high:.3f} |"


def emotion_table(
    captioned: Mapping[str, Sequence[Captioned]],
    baselines: Mapping[tuple[str, str], Sequence[str]],
    model: str,
) -> list[str]:
    """Markdown lines: the emotion named in the caption against eGeMAPS with an SVM."""
    lines = [
        "| corpus | system | clips | macro recall | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for corpus in LABELLED:
        rows = captioned[corpus]
        truth = [str(row.utterance.emotion) for row in rows]
        named = [row.emotion for row in rows]
        lines.append(emotion_row(corpus, f"{model}, named in its caption", len(rows), truth, named))
        likeliest = [
            max(row.caption.emotion, key=row.caption.emotion.__getitem__, default="")
            for row in rows
        ]
        lines.append(
            emotion_row(corpus, f"{model}, likeliest emotion", len(rows), truth, [*likeliest])
        )
        for kernel in KERNELS:
            if answers := baselines.get((corpus, kernel)):
                system = f"eGeMAPS + SVM ({kernel})"
                lines.append(emotion_row(corpus, system, len(rows), truth, [*answers]))
    return lines


def gender_lines(captioned: Mapping[str, Sequence[Captioned]]) -> list[str]:
    """Markdown lines: how often a gender is stated, and how often it is the labelled one."""
    lines = [
        "| corpus | clips with a label | stated | right where stated |",
        "| --- | --- | --- | --- |",
    ]
    matches: list[bool] = []
    for corpus in LABELLED:
        rows = [row for row in captioned[corpus] if trusted_gender(row.utterance)]
        right = [row.stated_gender == row.utterance.gender for row in rows if row.stated_gender]
        matches += right
        share = f"{sum(right) / len(right):.3f}" if right else "–"
        lines.append(f"| {corpus} | {len(rows)} | {len(right) / max(1, len(rows)):.1%} | {share} |")
    total = sum(len([r for r in captioned[c] if trusted_gender(r.utterance)]) for c in LABELLED)
    lines.append(
        f"| all | {total} | {len(matches) / max(1, total):.1%} | "
        f"{sum(matches) / max(1, len(matches)):.3f} |"
    )
    return lines


def claim_lines(rows: Iterable[Captioned]) -> list[str]:
    """Markdown lines: claims about pitch, loudness and pace beside what the signal shows."""
    counts = {trait: dict.fromkeys(Verdict, 0) for trait in MEASURED_TRAITS}
    for row in rows:
        for evidence in row.caption.evidence:
            if evidence.clue.trait in counts:
                counts[evidence.clue.trait][evidence.verdict] += 1
    everything = {verdict: sum(c[verdict] for c in counts.values()) for verdict in Verdict}
    lines = [
        "| claims about | claims | supported | contradicted | cannot tell |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in [*counts.items(), ("all three", everything)]:
        total = max(1, sum(found.values()))
        shares = " | ".join(f"{found[verdict] / total:.1%}" for verdict in Verdict)
        lines.append(f"| {name} | {sum(found.values())} | {shares} |")
    return lines


def distinct_line(rows: Sequence[Captioned], language: str) -> str:
    """How many different captions evenly chosen clips get."""
    step = max(1, len(rows) // DISTINCT_OVER)
    texts = [row.caption.text for row in rows[::step]][:DISTINCT_OVER]
    return f"Distinct captions ({language}): {len(set(texts))} over {len(texts)} clips."


def caption_all(
    model: str, utterances: Sequence[Utterance], *, language: str, per_speaker: bool = False
) -> list[Captioned]:
    """Each utterance captioned, beside its speaker's others or alone, but for those in which no
    speech is found; one that cannot be read is an error."""
    captioner = aligncap.load(model)
    sources: list[Any] = [one.path for one in utterances]
    if per_speaker:
        baselines = captioner.baselines(sources, [one.speaker for one in utterances])
        sources = [*map(Spoken, sources, baselines)]
    outcomes = captioner.caption_many(sources, language=language)
    found = []
    for utterance, outcome in zip(utterances, outcomes, strict=True):
        if isinstance(outcome, Caption):
            found.append(Captioned(utterance, outcome))
        elif not isinstance(outcome, NoSpeechError):
            raise outcome
    return found


def card_scores(rows: Sequence[Captioned], split: str) -> dict[str, str]:
    """What the model card says: macro recalls of the emotion named in English captions."""
    scores, found = {}, by_corpus(rows)
    for corpus in LABELLED:
        own = found[corpus]
        truth, named = [str(row.utterance.emotion) for row in own], [row.emotion for row in own]
        low, high = bootstrap_interval(truth, named)
        scores[f"macro recall of the emotion named, {corpus}"] = (
            f"{macro_recall(truth, named):.3f} [95 % interval {low:.3f}–{high:.3f}|"
            f"{len(own)} clips of {split} speakers|English captions]"
        )
    return scores


def report(
    model: str, data: Path, cache: Path, *, split: str, rivals: bool, former: str | None
) -> tuple[Page, list[Captioned]]:
    """The whole report, and every caption behind it; of the model `former` the emotions only."""
    everyone = [one for name in CORPORA for one in read_manifest(data / name / "manifest.jsonl")]
    train = [one for one in everyone if split_of(one) == "train"]
    validation = [one for one in everyone if split_of(one) == split]
    english = caption_all(model, validation, language="en")
    chinese = caption_all(model, validation, language="zh")
    # Rivals answer for the clips that got a caption: on the same clips they are compared.
    kept = [row.utterance for row in english]
    answers = svm_baselines(train, kept, cache) if rivals else {}
    made = (
        f"Made by `python -m aligncap.experiments.validation --split {split}`; do not edit. "
        f"Signature: aligncap {aligncap.__version__} · "
        f"model {model_fingerprint(find_model(model))[:12]} · "
        f"split {split} of data.splits · {len(validation)} clips of speakers never trained on, "
        f"{len(validation) - len(english)} of them refused as no speech · intervals by 1,000 "
        "stratified bootstrap draws, seed 0."
    )
    lines = [
        "## Emotion",
        "",
        *emotion_table(by_corpus(english), answers, model),
        "",
        "The same with Chinese captions:",
        "",
        *emotion_table(by_corpus(chinese), {}, f"{model}, Chinese"),
        "",
        *_per_speaker_lines(model, validation),
        *(_former_lines(former, validation, split) if former else ()),
        "## Gender",
        "",
        *gender_lines(by_corpus(english)),
        "",
        "## Claims against the signal",
        "",
        "Judged by the package's own measurements, which also wrote the captions that the model",
        "learnt from, fill its prompts and rank its beams: this says that captions follow the",
        "measurements, not that they are right. Witnesses from outside are in `witnesses.md`.",
        "",
        f"English captions of all {split} clips:",
        "",
        *claim_lines(english),
        "",
        "Chinese captions:",
        "",
        *claim_lines(chinese),
        "",
        "## Variety",
        "",
        distinct_line(english, "English"),
        distinct_line(chinese, "Chinese"),
    ]
    return (f"{model} on {split} speakers", made, lines), [*english, *chinese]


def _per_speaker_lines(model: str, utterances: Sequence[Utterance]) -> list[str]:
    captions = caption_all(model, utterances, language="en", per_speaker=True)
    return [
        "The same beside the speaker's other clips of the split (`--per speaker`), whose labels "
        "are not told:",
        "",
        *emotion_table(by_corpus(captions), {}, f"{model}, --per speaker"),
        "",
    ]


def _former_lines(model: str, utterances: Sequence[Utterance], split: str) -> list[str]:
    captions = caption_all(model, utterances, language="en")
    trained = ", some of whom it was trained on" if split == "test" else ", by whom it was chosen"
    return [
        f"The same of `{model}` on the same speakers{trained}:",
        "",
        *emotion_table(by_corpus(captions), {}, model),
        "",
    ]


def svm_baselines(
    train: Sequence[Utterance], tested: Sequence[Utterance], cache: Path
) -> dict[tuple[str, str], list[str]]:
    """The emotions that each support vector machine predicts of the tested clips, by (corpus,
    kernel)."""
    found = {}
    for corpus in LABELLED:
        own = [one for one in train if one.corpus == corpus]
        kept = [one for one in tested if one.corpus == corpus]
        values = functionals([*own, *kept], cache)
        for kernel in KERNELS:
            answers = svm_answers(own, values[: len(own)], values[len(own) :], kernel=kernel)
            found[corpus, kernel] = answers
    return found


def main(
    model: Annotated[str, typer.Option(help="Built-in model or model folder.")] = "mini",
    data: Annotated[Path, typer.Option(help="Folder with a folder a corpus.")] = Path(
        "../shared/data/speech"
    ),
    output: Annotated[
        Path | None, typer.Option(help="Markdown file; docs/results/SPLIT.md if not given.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Keeps eGeMAPS functionals.")] = Path(
        "runs/egemaps.npz"
    ),
    captions: Annotated[Path | None, typer.Option(help="JSONL file for every caption.")] = None,
    card: Annotated[Path | None, typer.Option(help="Model folder whose card gets it.")] = None,
    rivals: Annotated[bool, typer.Option(help="Train and test the SVMs too.")] = True,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    former: Annotated[str | None, typer.Option(help="Another model, for its emotions.")] = None,
) -> None:
    """Caption the speakers of a split and write the table."""
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    page, rows = report(model, data, cache, split=split, rivals=rivals, former=former)
    write_page(output or Path(f"docs/results/{split}.md"), *page)
    if card is not None:
        meta = read_meta(card)
        scores = card_scores([row for row in rows if row.caption.language == "en"], split)
        write_meta(card, replace(meta, notes=replace(meta.notes, scores=scores)))
    if captions is not None:
        with captions.open("w", encoding="utf-8") as file:
            for row in rows:
                line = {
                    "id": row.utterance.id,
                    "language": row.caption.language,
                    "label": row.utterance.emotion,
                    "named": row.emotion,
                    "caption": row.caption.text,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
