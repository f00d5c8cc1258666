"""What is known of a clip, and what it says of a claim: labels first, then signal, then people.

The evidence judge: what a caption claims, against what is known of the clip.

Known is what the corpus labels (emotion, gender), what the signal clearly shows and, where people
have captioned the clip, what they say. With the weights of `EvidenceWeights`,

    score = (said - contradicted C - invented I - untold U - wrong_emotion W - repeated R) / known

    known    what there is to say: 1 for each claim, `emotion` for one of an emotion, `middle` for
             one in the middle of its scale ("normal"); at least 1. A labelled gender is among it
             where the signal shows it too: what cannot be heard need not be said
    said     the same over those of them that the caption says
    C I U W  how many claims are contradicted, are in no reference though there is one, can be held
             against nothing, are of another emotion
    R        how often a claim of how the voice sounds is made that the caption has made before

A caption that says all and nothing wrong has 1, one that claims nothing has 0: saying less is no
way to a better score, and saying it twice neither. A rightly denied claim ("not loud") costs
nothing and says nothing.

What PPO maximises: a reward of captions of a clip, by name.

What is known of a clip, held against captions: verdicts counted, and the reward of PPO.

Greedy captions of validation rows, checked against the signal and the labels.

Preference losses can look well while captions get worse: this reads what the model really says.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib import import_module
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Protocol, Self

from pydantic import Field, NonNegativeInt, model_validator

from aligncap import __version__, clues
from aligncap.alignment.examples import Prompter, Sample
from aligncap.captioner.checkpoint import CaptionLimits
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.clues import emotion_of, find_clues, judge, measured_clues, opposites
from aligncap.preference.examples import PreferenceRow, reads
from aligncap.preference.values import Asked, Candidate, Clip, Judgement, normal_form
from aligncap.recipes import one_of, recipe_section
from aligncap.storage import hash_of_parts
from aligncap.values import Clue, Facts, Verdict

Claim = tuple[str, str]
"""Trait and meaning."""


class ClaimStatus(StrEnum):
    """What is known says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INVENTED = "invented"
    """People have captioned the clip, and none of them says so."""
    UNTOLD = "untold"
    """There is nothing to hold it against."""


_DENIED = {
    ClaimStatus.SUPPORTED: ClaimStatus.CONTRADICTED,
    ClaimStatus.CONTRADICTED: ClaimStatus.SUPPORTED,
}


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A clue held against what is known."""

    clue: Clue
    standing: ClaimStatus
    reason: str
    """In words: "pace 6.1 syllables/s (slow to 3.8, fast from 5.5)"."""


@dataclass(frozen=True, slots=True)
class ClipKnowledge:
    """What is known of a clip."""

    facts: Facts | None
    labels: Mapping[str, str]
    """Trait → meaning, as the corpus has it."""
    told: frozenset[Claim]
    """What people's captions claim."""

    @classmethod
    def of(cls, clip: Clip) -> "ClipKnowledge":
        """What labels, signal and references say; a claim is the same in each language."""
        labels = {"emotion": clip.emotion, "gender": clip.gender}
        told = (
            (clue.trait, clue.meaning)
            for language, texts in clip.references.items()
            for text in texts
            for clue in plain_clues(find_clues(text, language))
            if not clue.negated
        )
        held = MappingProxyType({trait: one for trait, one in labels.items() if one})
        return cls(clip.facts, held, frozenset(told))

    def claims(self) -> tuple[Claim, ...]:
        """What there is to say: labels, what the signal clearly shows, what people say besides.

        A labelled gender is left out where the signal was measured and shows none.
        """
        shown = measured_clues(self.facts) if self.facts else ()
        heard = {clue.trait for clue in shown}
        found = [
            (trait, meaning)
            for trait, meaning in self.labels.items()
            if trait != "gender" or self.facts is None or "gender" in heard
        ]
        found += [(clue.trait, clue.meaning) for clue in shown if clue.trait not in self.labels]
        told = (Clue(meaning, trait, meaning) for trait, meaning in sorted(self.told))
        found += [
            (clue.trait, clue.meaning)
            for clue in told
            if self.hold(clue).standing is ClaimStatus.SUPPORTED
        ]
        return tuple(dict.fromkeys(found))

    def hold(self, clue: Clue) -> CheckedClaim:
        """A clue against it; a denied one by what it denies."""
        if clue.negated:
            plain = self.hold(replace(clue, negated=False))
            return CheckedClaim(clue, _DENIED.get(plain.standing, plain.standing), plain.reason)
        label = self.labels.get(clue.trait)
        if label is not None:
            right = ClaimStatus.SUPPORTED if label == clue.meaning else ClaimStatus.CONTRADICTED
            return CheckedClaim(clue, right, f"the clip is labelled {label}")
        (evidence,) = judge([clue], self.facts) if self.facts else (None,)
        if evidence is not None and evidence.verdict is not Verdict.CANNOT_TELL:
            return CheckedClaim(clue, ClaimStatus(evidence.verdict.value), evidence.measurement)
        measured = evidence.measurement if evidence else "the clip was not measured"
        return self._by_people(clue, measured)

    def _by_people(self, clue: Clue, measured: str) -> CheckedClaim:
        if (clue.trait, clue.meaning) in self.told:
            return CheckedClaim(clue, ClaimStatus.SUPPORTED, "a reference says so")
        others = opposites(clue.trait, clue.meaning)
        against = sorted(
            meaning
            for trait, meaning in self.told
            # One emotion is no other, though few are opposites.
            if trait == clue.trait and (trait == "emotion" or meaning in others)
        )
        if against:
            return CheckedClaim(clue, ClaimStatus.CONTRADICTED, f"a reference says {against[0]}")
        if self.told:
            return CheckedClaim(clue, ClaimStatus.INVENTED, "no reference says so")
        return CheckedClaim(clue, ClaimStatus.UNTOLD, measured)


def plain_clues(clues: Iterable[Clue]) -> list[Clue]:
    """Each claim once; "calm" beside an emotion is none, it says how the emotion is borne."""
    once: dict[tuple[str, str, bool], Clue] = {}
    for one in clues:
        once.setdefault((one.trait, one.meaning, one.negated), one)
    found = list(once.values())
    moved = any(
        one.trait == "emotion" and one.meaning != "neutral" and not one.negated for one in found
    )
    return [
        one for one in found if not (moved and (one.trait, one.meaning) == ("emotion", "neutral"))
    ]


Weight = Annotated[float, Field(ge=0, lt=inf)]

MIDDLE = "normal"
"""The meaning of a fact in the middle of its scale: true of most clips, so it says little."""


@recipe_section
class EvidenceWeights:
    """What claims are worth and what they cost, in units of one clear fact that is said."""

    contradicted: Weight = 1.5
    """More than a fact is worth, so that a guess does not pay."""
    invented: Weight = 0.5
    """A claim that no reference makes, where people have captioned the clip."""
    untold: Weight = 0.1
    """A claim that can be held against nothing."""
    emotion: Weight = 2.0
    """The right emotion; it names the state itself."""
    wrong_emotion: Weight = 2.0
    middle: Weight = 0.25
    repeated: Weight = 0.25
    """"A low voice with a low pitch" says one thing."""

    def worth(self, claim: Claim) -> float:
        """What it is worth to say this, where it is so."""
        if claim[0] == "emotion":
            return self.emotion
        return self.middle if claim[1] == MIDDLE else 1.0

    def cost(self, held: CheckedClaim) -> tuple[str, float]:
        """What a claim that is not supported costs, and the name of the weight."""
        name = held.standing.value
        if held.standing is ClaimStatus.CONTRADICTED and held.clue.trait == "emotion":
            name = "wrong_emotion"
        return name, float(getattr(self, name))


@dataclass(frozen=True, slots=True)
class EvidenceJudge:
    """Judges by evidence: offline, and the same today and tomorrow."""

    weights: EvidenceWeights = field(default_factory=EvidenceWeights)
    name: str = "evidence"
    at_once: int = 1

    @property
    def signature(self) -> str:
        """Weights, and a hash of the vocabulary, grammar and thresholds of clues."""
        weights = ",".join(f"{one:g}" for one in astuple(self.weights))
        return f"evidence|weights:{weights}|clues:{clues_fingerprint()}|v{__version__}"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`."""
        return [self._judge_clip(clip, candidates) for clip, candidates in asked]

    def close(self) -> None:
        """As `Judge`: it holds nothing open."""

    def _judge_clip(self, clip: Clip, candidates: Sequence[Candidate]) -> list[Judgement]:
        known = ClipKnowledge.of(clip)
        claims = known.claims()
        return [self._judge(one, known, claims) for one in candidates]

    def _judge(
        self, candidate: Candidate, known: ClipKnowledge, claims: Sequence[Claim]
    ) -> Judgement:
        every = find_clues(candidate.text, candidate.language, repeats=True)
        found = plain_clues(every)
        held = [known.hold(clue) for clue in found]
        supported = {_claim(one) for one in held if _says(one)}
        said = [claim for claim in claims if claim in supported]
        repeated = _repeated(every)
        parts = dict.fromkeys(("contradicted", "invented", "untold", "wrong_emotion"), 0.0)
        costs = self.weights.repeated * repeated
        for one in held:
            if _costs(one):
                name, cost = self.weights.cost(one)
                parts[name] += 1
                costs += cost
        total = max(1.0, sum(map(self.weights.worth, claims)))
        worth = sum(map(self.weights.worth, said))
        left = [claim for claim in claims if claim not in said and self.weights.worth(claim) >= 1]
        return Judgement(
            candidate=candidate.key,
            judge=self.signature,
            score=(worth - costs) / total,
            parts=MappingProxyType(
                {"said": worth, "known": total, **parts, "repeated": float(repeated)}
            ),
            reason=_reason(held, left, repeated),
        )


_WHO = ("emotion", "gender")
"""Traits that a sentence comes back to without saying them again: "calm and collected", "his"."""


def _repeated(clues: Iterable[Clue]) -> int:
    said = [(one.trait, one.meaning, one.negated) for one in clues if one.trait not in _WHO]
    return len(said) - len(set(said))


def _claim(held: CheckedClaim) -> Claim:
    return held.clue.trait, held.clue.meaning


def _says(held: CheckedClaim) -> bool:
    return held.standing is ClaimStatus.SUPPORTED and not held.clue.negated


def _costs(held: CheckedClaim) -> bool:
    # What a caption denies it does not make up.
    made_up = held.standing in (ClaimStatus.INVENTED, ClaimStatus.UNTOLD) and not held.clue.negated
    return held.standing is ClaimStatus.CONTRADICTED or made_up


_ORDER: Mapping[ClaimStatus, int] = MappingProxyType(
    {ClaimStatus.CONTRADICTED: 0, ClaimStatus.INVENTED: 1, ClaimStatus.UNTOLD: 2}
)


def _reason(held: Iterable[CheckedClaim], left: Sequence[Claim], repeated: int) -> str:
    """In words, the worst first: "says 'slow' but pace 6.1 syllables/s (…); rightly says 'sad'"."""
    held = list(held)
    wrong = sorted((one for one in held if _costs(one)), key=lambda one: _ORDER[one.standing])
    notes = [
        f"{'denies' if one.clue.negated else 'says'} '{one.clue.word}'"
        f"{' but' if one.standing is ClaimStatus.CONTRADICTED else ', unsupported:'} {one.reason}"
        for one in wrong
    ]
    right = [f"'{one.clue.word}'" for one in held if _says(one)]
    notes += [f"rightly says {', '.join(right)}"] if right else []
    notes += [f"says {repeated} of it again"] if repeated else []
    unsaid = ", ".join(f"{meaning} ({trait})" for trait, meaning in left)
    notes += [f"leaves out {unsaid}"] if left else []
    return "; ".join(notes) or "claims nothing, and there is nothing to claim"


@cache
def clues_fingerprint() -> str:
    """A hash of everything that verdicts on clues depend on: the package of clues."""
    files = sorted(Path(clues.__file__).parent.rglob("*"))
    return hash_of_parts(one.read_bytes() for one in files if one.suffix in (".py", ".toml"))[:12]


REWARDS = {
    "evidence": "aligncap.preference.evidence:open_evidence_reward",
    "model": "aligncap.preference.reward:open_model_reward",
}
"""Where rewards come from: name → module and its function of the settings."""


class RewardOf(Protocol):
    """Says how good captions of a clip are; more is better."""

    def __call__(self, row: PreferenceRow, texts: Sequence[str]) -> list[float]:
        """The reward of each text, which is in the row's language."""


@recipe_section
class RewardSettings:
    """Which reward, and where it is."""

    name: Annotated[str, one_of(REWARDS)] = "evidence"
    """"evidence" (what the signal and the labels say: a verifiable reward) or "model"."""
    model: Path | None = None
    """Folder of the reward model, for "model"."""
    evidence: EvidenceWeights = field(default_factory=EvidenceWeights)
    """What claims are worth and what they cost, for "evidence"."""

    @model_validator(mode="after")
    def _model_is_given(self) -> Self:
        if (self.name == "model") != (self.model is not None):
            raise ValueError('the reward "model" needs reward.model, its folder; others have none')
        return self


def open_reward(settings: RewardSettings) -> RewardOf:
    """The reward that the settings ask for; what it needs is imported only now."""
    module, _, function = REWARDS[settings.name].partition(":")
    reward: RewardOf = getattr(import_module(module), function)(settings)
    return reward


SAYS_NOTHING = -1.0
"""The reward of an empty rollout: worse than a sentence that claims nothing, which has 0."""


def verdicts(text: str, *, language: str, facts: Facts) -> Counter[Verdict]:
    """How many clues of a caption the facts support, contradict, and cannot tell of."""
    return Counter(one.verdict for one in judge(find_clues(text, language), facts))


@dataclass(frozen=True, slots=True)
class EvidenceReward:
    """The score of the evidence judge, as a reward (decision 11)."""

    judge: EvidenceJudge = field(default_factory=EvidenceJudge)

    def __call__(self, row: PreferenceRow, texts: Sequence[str]) -> list[float]:
        """As `RewardOf`."""
        said = [text for text in texts if normal_form(text)]
        name, language = row.clip.id, row.language
        asked = (clip_of_row(row), [Candidate(name, language, text) for text in said])
        (found,) = self.judge.judge([asked])
        scores = {text: one.score for text, one in zip(said, found, strict=True)}
        return [scores.get(text, SAYS_NOTHING) for text in texts]


def clip_of_row(row: PreferenceRow) -> Clip:
    """What a preference row knows of its clip, as judges read it."""
    return Clip(
        utterance=row.clip.id,
        file="",
        facts=row.facts,
        emotion=row.emotion,
        gender=row.gender,
        references=row.references,
    )


def open_evidence_reward(settings: RewardSettings) -> RewardOf:
    """The reward "evidence"."""
    return EvidenceReward(EvidenceJudge(settings.evidence))


@recipe_section
class CheckSettings:
    """Captions that are written and checked at each validation."""

    rows: NonNegativeInt = 64
    """Validation rows that are captioned, spread over all there are; 0 checks nothing."""


@dataclass(frozen=True, slots=True)
class Captioning:
    """A model, and what it needs to caption rows."""

    model: CaptionModel
    prompter: Prompter
    limits: CaptionLimits
    act_mode: str
    """Where the prompt's P_act comes from."""

    def runtime(self) -> TorchRuntime:
        """The model as what responses are asked of."""
        vocabulary = self.model.vocabulary
        stops = vocabulary.stop_ids(self.limits.stop_characters)
        return TorchRuntime(self.model.causal_lm, ResponseRules(vocabulary.text_rows, stops))

    def prompt_ids(self, place: int, row: PreferenceRow) -> tuple[int, ...]:
        """What the model reads of a row, the one at `place` in the prompter's list."""
        draw = Sample(place, row.language, (0,), None)
        return self.prompter.student_row(draw, reads(self.act_mode)).prompt_ids

    def text_of(self, ids: Sequence[int]) -> str:
        """A response in words."""
        return self.model.vocabulary.decode(ids).strip()


class CaptionCheck:
    """Captions a fixed choice of validation rows and says how they did."""

    def __init__(
        self,
        captioning: Captioning,
        rows: Sequence[PreferenceRow],
        settings: CheckSettings,
        *,
        reward: RewardOf | None = None,
    ) -> None:
        self._captioning, self._reward = captioning, reward
        places = [place for place, row in enumerate(rows) if row.clip.split == "validation"]
        step = max(1.0, len(places) / max(1, settings.rows))
        chosen = [places[int(i * step)] for i in range(min(settings.rows, len(places)))]
        self._rows = [rows[place] for place in chosen]
        self._prompts = [captioning.prompt_ids(place, rows[place]) for place in chosen]

    def __call__(self) -> dict[str, float]:
        """Means over the captions, as far as the rows know what is needed:

        "validation_contradicted" (of the claims that the signal can tell of, the share that it
        contradicts: the hallucination rate), "validation_clues" and "validation_tokens" a caption
        (saying less is the cheap way to a lower rate), "validation_emotion" (share that names
        the labelled emotion) and "validation_reward".
        """
        if not self._rows:
            return {}
        limits = self._captioning.limits
        options = DecodeOptions(
            beam_size=1, min_length=limits.min_tokens, max_length=limits.max_tokens
        )
        found = self._captioning.runtime().generate(self._prompts, options)
        texts = [self._captioning.text_of(one[0].ids) for one in found]
        count = len(texts)
        clues = [
            find_clues(text, row.language) for text, row in zip(texts, self._rows, strict=True)
        ]
        told = {
            "validation_clues": sum(map(len, clues)) / count,
            "validation_tokens": sum(len(one[0].ids) for one in found) / count,
            **self._against_signal(texts),
        }
        labelled = [
            emotion_of(named) == row.emotion
            for named, row in zip(clues, self._rows, strict=True)
            if row.emotion is not None
        ]
        if labelled:
            told["validation_emotion"] = sum(labelled) / len(labelled)
        if self._reward is not None:
            pairs = zip(self._rows, texts, strict=True)
            told["validation_reward"] = sum(self._reward(r, [t])[0] for r, t in pairs) / count
        return told

    def _against_signal(self, texts: Sequence[str]) -> dict[str, float]:
        counts: Counter[Verdict] = Counter()
        measured = 0
        for text, row in zip(texts, self._rows, strict=True):
            if row.facts is not None:
                measured += 1
                counts += verdicts(text, language=row.language, facts=row.facts)
        if not measured:
            return {}
        told = counts[Verdict.SUPPORTED] + counts[Verdict.CONTRADICTED]
        return {"validation_contradicted": counts[Verdict.CONTRADICTED] / max(1, told)}
