"""Tables of what a model said of utterances: pure functions from captions to markdown lines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aligncap.clues import emotion_of, find_clues
from aligncap.corpora.manifest import Utterance, trusted_gender
from aligncap.experiments.egemaps import KERNELS
from aligncap.experiments.recall import bootstrap_interval
from aligncap.scoring.emotion_scores import macro_recall
from aligncap.values import Caption, Verdict

CORPORA = ("ravdess", "emodb", "ased", "nemo", "secap")
RIVALS = ("ravdess", "emodb", "ased", "nemo")
"""Corpora with labels, on which a classifier can be trained."""
MEASURED_TRAITS = ("pitch", "volume", "pace")
DISTINCT_OVER = 500


@dataclass(frozen=True, slots=True)
class Captioned:
    """A validation clip with what the model said of it."""

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


def emotion_row(
    name: str, system: str, clips: int, truth: list[str], named: list[str | None]
) -> str:
    """One row of the emotion table: macro recall with its 95 % interval."""
    low, high = bootstrap_interval(truth, named)
    value = macro_recall(truth, named)
    return f"| {name} | {system} | {clips} | {value:.3f} | {low:.3f}–{high:.3f} |"


def emotion_table(
    captioned: Mapping[str, Sequence[Captioned]],
    rivals: Mapping[tuple[str, str], Sequence[str]],
    model: str,
) -> list[str]:
    """Markdown lines: the emotion named in the caption against eGeMAPS with an SVM."""
    lines = [
        "| corpus | system | clips | macro recall | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for corpus in RIVALS:
        rows = captioned[corpus]
        truth = [str(row.utterance.emotion) for row in rows]
        named = [row.emotion for row in rows]
        lines.append(emotion_row(corpus, f"{model}, named in its caption", len(rows), truth, named))
        heard = [max(row.caption.emotion, key=row.caption.emotion.__getitem__) for row in rows]
        lines.append(emotion_row(corpus, f"{model}, likeliest emotion", len(rows), truth, [*heard]))
        for kernel in KERNELS:
            if answers := rivals.get((corpus, kernel)):
                system = f"eGeMAPS + SVM ({kernel})"
                lines.append(emotion_row(corpus, system, len(rows), truth, [*answers]))
    return lines


def gender_lines(captioned: Mapping[str, Sequence[Captioned]]) -> list[str]:
    """Markdown lines: how often a gender is stated, and how often it is the labelled one."""
    lines = [
        "| corpus | clips with a label | stated | right where stated |",
        "| --- | --- | --- | --- |",
    ]
    everywhere: list[bool] = []
    for corpus in RIVALS:
        rows = [row for row in captioned[corpus] if trusted_gender(row.utterance)]
        right = [row.stated_gender == row.utterance.gender for row in rows if row.stated_gender]
        everywhere += right
        share = f"{sum(right) / len(right):.3f}" if right else "–"
        lines.append(f"| {corpus} | {len(rows)} | {len(right) / max(1, len(rows)):.1%} | {share} |")
    total = sum(len([r for r in captioned[c] if trusted_gender(r.utterance)]) for c in RIVALS)
    lines.append(
        f"| all | {total} | {len(everywhere) / max(1, total):.1%} | "
        f"{sum(everywhere) / max(1, len(everywhere)):.3f} |"
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
