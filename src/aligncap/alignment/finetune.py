"""A shipped model adapted to somebody's own clips: labels to an emotion head, captions to the
language model.

The encoder stays as it is and is heard once a clip. From labels a small head is fitted on top
(`tokenizers.emotion_head`), without torch. Where clips have captions, the language model goes on
from its shipped weights with them; that needs torch. What is reported is of clips whose speaker the
fitted part had not met: recall before and after, with an interval over speakers.

    OUT.work/tokens     what the encoder gave of each clip: a run that was broken off goes on
             adapted    the model with the new head
             rows       training rows, where there are captions
             ce         the run of the language model
    OUT                 the exported model, finetune.json in it
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from aligncap.audio import speech_activity
from aligncap.captioner import checkpoint
from aligncap.captioner.runtimes import CT2_FOLDER
from aligncap.data.manifest import Utterance, measure_all
from aligncap.data.own_clips import LEAST_CAPTIONS, OwnClips, check_clips
from aligncap.errors import AudioError, DataError, NoSpeechError
from aligncap.metrics.scores import Statistics, interval
from aligncap.storage import atomic_folder, hash_of_file, write_atomic
from aligncap.tokenizers import builtin, emotion_head
from aligncap.tokenizers.cache import Progress, TokenCache
from aligncap.values import EMOTIONS, SpeechTokens, Waveform

if TYPE_CHECKING:  # imported on use: labels need no torch
    from aligncap.alignment.kd import CeSettings

REPORT_FILE = "finetune.json"


@dataclass(frozen=True, slots=True)
class Raw:
    """The built-in tokenizer without its head, whose tokens carry what a head looks at.

    Raises NoSpeechError where nobody speaks, AudioError where a clip is too long.
    """

    tokenizer: builtin.BuiltinTokenizer
    max_speech_s: float
    name: str = "builtin"

    @property
    def codebooks(self) -> int:
        """As the tokenizer's."""
        return self.tokenizer.codebooks

    @property
    def frame_rate_hz(self) -> float:
        """As the tokenizer's."""
        return self.tokenizer.frame_rate_hz

    @property
    def codebook_size(self) -> int:
        """As the tokenizer's."""
        return self.tokenizer.codebook_size

    @property
    def fingerprint(self) -> str:
        """The tokenizer's, marked: these tokens carry more."""
        return f"raw-{self.tokenizer.encoder_fingerprint}"

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The tokens; `readout["features"]` has what a head looks at, by place."""
        if waveform.duration_s > self.max_speech_s:
            raise AudioError(
                f"{waveform.source}: {waveform.duration_s:.0f} s long; cut it into clips of "
                f"{self.max_speech_s:g} s at most"
            )
        if not speech_activity(waveform):
            raise NoSpeechError(f"{waveform.source}: nobody speaks in it; leave it out")
        tokens = self.tokenizer.hear(waveform)
        emotion = np.array(list(tokens.readout["emotion"].values()))
        features = emotion_head.head_features(emotion, tokens.vector)
        named = {str(place): float(value) for place, value in enumerate(features)}
        return SpeechTokens(tokens.codes, {**tokens.readout, "features": named})


@dataclass(frozen=True, slots=True, eq=False)
class HeardClips:
    """The clips that could be heard, with what the encoder gave of each."""

    clips: tuple[Utterance, ...]
    tokens: tuple[SpeechTokens, ...]
    faults: tuple[str, ...]

    def labelled(self) -> tuple[list[int], emotion_head.Clips]:
        """The places of the clips with an emotion, and what a head is fitted to."""
        places = [place for place, one in enumerate(self.clips) if one.emotion]
        tokens = [self.tokens[place] for place in places]
        return places, emotion_head.Clips(
            emotion=_column(tokens, "emotion"),
            features=_column(tokens, "features"),
            labels=np.array([EMOTIONS.index(str(self.clips[p].emotion)) for p in places]),
            groups=groups_of([self.clips[place] for place in places]),
        )


def _column(tokens: Sequence[SpeechTokens], name: str) -> NDArray[np.float64]:
    return np.array([list(one.readout[name].values()) for one in tokens], dtype=np.float64)


def groups_of(clips: Sequence[Utterance]) -> NDArray[np.int64]:
    """The number of each clip's speaker; of the clip itself where not every clip names a speaker,
    or all name the same."""
    names = [one.speaker for one in clips]
    if None in names or len(set(names)) < 2:
        return np.arange(len(clips))
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def hear(
    found: OwnClips, tokenizer: builtin.BuiltinTokenizer, work: Path, *,
    max_speech_s: float, progress: Progress | None = None,
) -> HeardClips:  # fmt: skip
    """What the encoder gives of each clip, kept in `work`; what cannot be heard is a fault."""
    with TokenCache(work / "tokens", Raw(tokenizer, max_speech_s)) as cache:
        failures = {one.id: one.reason for one in cache.fill(found.clips, progress).failures}
        clips = tuple(one for one in found.clips if one.id not in failures)
        return HeardClips(
            clips, tuple(cache.get(one.id) for one in clips), tuple(failures.values())
        )


@dataclass(frozen=True, slots=True)
class Recall:
    """Macro recall of the emotions, 0 to 1, with its 95 % interval."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        bounds = "" if self.low is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{bounds}"


def recall_of(hits: NDArray[np.float64], clips: emotion_head.Clips) -> Recall:
    """The mean over emotions of the mean of `hits` [clips]; resampled by group."""
    classes, labels = np.unique(clips.labels, return_inverse=True)
    groups = np.unique(clips.groups, return_inverse=True)[1]
    cells, size = groups * len(classes) + labels, (int(groups.max()) + 1) * len(classes)
    counts = [np.bincount(cells, one, size) for one in (hits, np.ones_like(hits))]
    sums = np.array(counts, np.float64).reshape(2, -1, len(classes)).transpose(1, 0, 2)

    def value_of(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        right, all_of = np.moveaxis(flat.reshape(*flat.shape[:-1], 2, len(classes)), -2, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: NDArray[np.float64] = np.nanmean(right / all_of, axis=-1)
        return mean

    statistics = Statistics(sums.reshape(len(sums), -1), value_of)
    return Recall(statistics.value, *interval(statistics))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReport:
    """What the new head does to clips whose speaker it has not met."""

    emotions: Mapping[str, int]
    """Clips of each."""
    speakers: int
    """0: not known, so clips were left out instead."""
    before: Recall
    among: float
    """Recall before, of an answer among the emotions of the data only."""
    after: Recall
    gain: Recall
    """After less before, of the same clips."""
    cross_entropy: tuple[float, float]
    """Before and after, in nats."""

    @property
    def kept(self) -> bool:
        """Whether the head is of use to clips that it has not met, and so was written."""
        return self.gain.value > 0

    def lines(self) -> Iterator[str]:
        """In words."""
        left_out = "held-out speakers" if self.speakers else "held-out clips (speakers not known)"
        yield f"emotion recall on {left_out}: {self.before} before, {self.after} after"
        yield (
            f"gain {self.gain.value:+.2f}"
            + ("" if self.gain.low is None else f" ({self.gain.low:+.2f} to {self.gain.high:+.2f})")
            + f"; before, among these {len(self.emotions)} emotions only: {self.among:.2f}"
        )
        if not self.kept:
            yield "the labels did not help on what it had not met; the encoder's own answer stays"
        elif self.gain.low is not None and self.gain.low <= 0:
            yield "the gain may be chance; more clips, or more speakers, would tell"


def adapt_head(
    heard: HeardClips,
) -> tuple[emotion_head.EmotionHead | None, HeadReport, list[SpeechTokens]]:
    """The head of labelled clips, None where it is of no use; its report; and every clip's tokens
    with the emotion of a head that has not met its speaker: what captions are learnt beside must
    not know the answer."""
    places, clips = heard.labelled()
    head, unmet = emotion_head.fit_calibrated(clips)
    known = np.isin(np.arange(len(EMOTIONS)), clips.labels)
    right = [
        (answers.argmax(axis=1) == clips.labels).astype(np.float64)
        for answers in (clips.emotion, np.where(known, clips.emotion, 0.0), unmet)
    ]
    losses = [emotion_head.cross_entropy(one, clips.labels) for one in (clips.emotion, unmet)]
    names = [heard.clips[place] for place in places]
    by_clip = len(np.unique(clips.groups)) == len(places)
    report = HeadReport(
        emotions=dict(Counter(str(one.emotion) for one in names)),
        speakers=0 if by_clip else len(np.unique(clips.groups)),
        before=recall_of(right[0], clips),
        among=recall_of(right[1], clips).value,
        after=recall_of(right[2], clips),
        gain=recall_of(right[2] - right[0], clips),
        cross_entropy=(losses[0], losses[1]),
    )
    if not report.kept:
        return None, report, list(heard.tokens)
    emotion = head.probabilities(
        _column(heard.tokens, "emotion"), _column(heard.tokens, "features")
    )
    emotion[places] = unmet
    tokens = [builtin.with_emotion(*both) for both in zip(heard.tokens, emotion, strict=True)]
    return head, report, tokens


def write_adapted(
    model: Path,
    out: Path,
    head: emotion_head.EmotionHead | None,
    *,
    name: str,
    made: Mapping[str, str],
) -> None:
    """A copy of an exported model with a head, under a name, and how it was made."""
    meta = checkpoint.read_meta(model)
    with atomic_folder(out) as partial:
        shutil.copytree(model, partial, dirs_exist_ok=True)
        with suppress(FileNotFoundError):
            (partial / REPORT_FILE).unlink()
        if head is not None:
            head.save(partial / emotion_head.HEAD_FILE)
        fingerprint = builtin.fingerprint_of(partial / builtin.ENCODER_FILE)
        adapted = replace(
            meta,
            name=name,
            tokenizer=replace(meta.tokenizer, fingerprint=fingerprint),
            notes=replace(meta.notes, scores={}),  # of the model that it was
        )
        checkpoint.write_meta(partial, _told(adapted, {"fine-tuned from": meta.name, **made}))


def _told(meta: checkpoint.ModelMeta, made: Mapping[str, str]) -> checkpoint.ModelMeta:
    return replace(meta, provenance=MappingProxyType({**meta.provenance, **made}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageReport:
    """What the captions did to the language model."""

    captions: int
    """Clips with captions that it learnt from."""
    written: int
    """Clips with a label only that it learnt from, by captions written from labels."""
    validation: int
    """Clips kept out, whose captions were held against it."""
    unused: int
    """Clips with a label only of people who were kept out: neither learnt from nor held against
    it."""
    met: bool
    """Whether those kept out may be people it learnt from: fewer than two speakers with captions
    are known."""
    before: float
    """Cross-entropy of their captions, in nats a token."""
    after: float
    kept: bool
    """Whether the trained model is the better one, and so the one that was written."""

    def lines(self) -> Iterator[str]:
        """In words."""
        yield (
            f"captions of {self.validation} held-out clips: {self.before:.2f} nats a token before, "
            f"{self.after:.2f} after ({self.captions} clips with captions learnt from, "
            f"{self.written} with a label only)"
        )
        if self.unused:
            yield (
                f"{self.unused} clips with a label only are of the speakers held out, and were not "
                "learnt from"
            )
        if self.met:
            yield (
                "fewer than two speakers with captions are known, so clips were held out, perhaps "
                "of people it learnt from; captions by more named speakers would tell"
            )
        if not self.kept:
            yield "the captions did not help on what it had not met; the language model stays"


HELD_OUT_FOLDS = 5
"""One of them is what captions are validated on."""

STEPS_A_CLIP, FEWEST_STEPS, MOST_STEPS = 0.4, 40, 600

Part = Literal["captions", "written", "validation", "unused"]
"""What a clip is for, as `LanguageReport` counts them."""


def parts_of(clips: Sequence[Utterance]) -> tuple[list[Part], bool]:
    """What each clip is for, and whether those kept out may be of people that are learnt from.

    Of the speakers with captions those are kept out whose captions are nearest to a fifth of all;
    of clips with captions where fewer than two such speakers are known.
    """
    captioned = np.array([bool(one.captions) for one in clips])
    speakers = {one.speaker for one in clips if one.captions}
    met = len(speakers) < 2 or any(one.speaker is None for one in clips)
    groups = np.arange(len(clips)) if met else groups_of(clips)
    folds = emotion_head.folds_of(groups[captioned], HELD_OUT_FOLDS)
    chosen = np.abs(np.bincount(folds) * HELD_OUT_FOLDS - len(folds)).argmin()
    out = np.isin(groups, groups[captioned][folds == chosen])

    def part(kept_out: bool, told: bool) -> Part:
        if kept_out:
            return "validation" if told else "unused"
        return "captions" if told else "written"

    return list(map(part, out.tolist(), captioned.tolist())), met


def write_own_rows(
    heard: HeardClips,
    tokens: Sequence[SpeechTokens],
    parts: Sequence[Part],
    model: Path,
    work: Path,
) -> Path:
    """The file of training rows of the clips: to learn from, with captions in every language, those
    of clips with a label only written; to validate on, with people's captions alone."""
    from aligncap.alignment.examples import SpeechSource, TrainingRow, write_rows
    from aligncap.alignment.rows import training_row
    from aligncap.clues import detect_language

    facts = measure_all(work / "facts.jsonl", [one.path for one in heard.clips])
    planned = checkpoint.read_meta(model).plans

    def rows() -> Iterator[TrainingRow]:
        for clip, own, found, part in zip(heard.clips, tokens, facts, parts, strict=True):
            if part == "unused":
                continue
            split = "validation" if part == "validation" else "train"
            row = training_row(clip, found, own, split=split, captions=4, seed=0, planned=planned)
            assert row is not None  # a clip of one's own has an emotion or captions
            if part == "validation":
                spoken = {detect_language(text) for text in clip.captions}
                texts = {one: row.captions[one] for one in row.captions if one in spoken}
                row = replace(row, captions=texts)
            yield row

    path = work / "rows.jsonl"
    write_rows(path, SpeechSource.of(builtin.open_builtin(model)), rows())
    return path


def language_settings(rows: Path, model: Path, steps: int) -> "CeSettings":
    """How the language model of an exported folder goes on."""
    from aligncap.alignment.examples import BatchSettings, DataSettings, StudentSettings
    from aligncap.alignment.init_model import ModelSettings
    from aligncap.alignment.kd import CeSettings
    from aligncap.alignment.trainer import OutputSettings, ValidationSettings
    from aligncap.training.settings import FitSettings

    meta = checkpoint.read_meta(model)
    return CeSettings(
        data=DataSettings(rows=(rows,)),
        training=FitSettings(
            steps=steps, learning_rate=3e-4, warmup_steps=steps // 10, weight_decay=0.05
        ),
        model=ModelSettings(start=model),
        batch=BatchSettings(captions=2),
        student=StudentSettings(act_mode=meta.act_mode, speech_dropout=0.1),
        validation=ValidationSettings(every=max(5, steps // 8), best="ce"),
        output=OutputSettings(name=meta.name),
        limits=meta.limits,
    )


def adapt_language(
    heard: HeardClips, tokens: Sequence[SpeechTokens], model: Path, work: Path, *, out: Path
) -> LanguageReport:
    """Go on training the language model of an exported folder with the clips' captions, and write
    the better of the two to `out`. Needs torch; a run that was broken off goes on."""
    from aligncap.alignment.kd import ce_task
    from aligncap.alignment.trainer import StageTrainer, read_training_rows
    from aligncap.captioner.export import export

    parts, met = parts_of(heard.clips)
    counts = Counter(parts)
    path = write_own_rows(heard, tokens, parts, model, work)
    settings = language_settings(path, model, steps_for(len(heard.clips)))
    # Rows that have changed since are another run's.
    run = work / f"ce-{hash_of_file(path)[:12]}"
    trainer = StageTrainer(
        settings, run, kind="ce", data=read_training_rows([path], needs_speech=True)
    )
    if not trainer.validation_samples():
        raise DataError(
            f"{model}: can read none of the {counts['validation']} clips held out, so whether "
            "captions help cannot be told; shorten clips and captions, or give --labels-only"
        )
    task = ce_task(settings, trainer)
    validate = trainer.validator(task, trainer.model)
    before = validate()["validation_ce"]
    trainer.run(task, acoustic_prompt_source=settings.student.act_mode, resume=True)
    after = validate()["validation_ce"]
    if after < before:
        provenance = checkpoint.read_meta(model).provenance
        quantization = provenance.get("quantization", "int8")
        export(run / checkpoint.RUN_MODEL_FOLDER, out, quantization=quantization)
        told = {**provenance, "captions learnt from": str(counts["captions"])}
        checkpoint.write_meta(out, _told(checkpoint.read_meta(out), told))
    else:
        shutil.copytree(model, out)
    return LanguageReport(
        captions=counts["captions"],
        written=counts["written"],
        validation=counts["validation"],
        unused=counts["unused"],
        met=met,
        before=before,
        after=after,
        kept=after < before,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneReport:
    """What a model has learnt from somebody's clips."""

    clips: int
    head: HeadReport | None
    language: LanguageReport | None
    few_captions: int
    """Clips with captions where they were too few to learn from; else 0."""
    faults: tuple[str, ...]
    """Clips that were left out, and why."""
    seconds: float

    def lines(self) -> Iterator[str]:
        """In words."""
        for part in (self.head, self.language):
            yield from part.lines() if part else ()
        if self.few_captions:
            yield too_few(self.few_captions)
        yield f"{self.clips} clips, {len(self.faults)} left out, {self.seconds:.0f} s"


def check_model(model: Path) -> checkpoint.ModelMeta:
    """The meta of a model that can be fine-tuned; DataError where it is another kind."""
    meta = checkpoint.read_meta(model)
    if meta.tokenizer.name != "builtin":
        raise DataError(
            f"{model}: hears with {meta.tokenizer.name}, which reads no emotions; fine-tune it "
            "with a recipe of kind 'token-rows' and one of kind 'kd'"
        )
    if not (model / CT2_FOLDER).is_dir():
        raise DataError(f"{model}: is not exported; run: aligncap export {model} OUT")
    return meta


def plan(found: OwnClips, *, captions: bool) -> Iterator[str]:
    """What there is, and what would be done with it, in words."""
    speakers = f"{found.speakers} speakers" if found.speakers else "speakers not all named"
    counts = ", ".join(f"{count} {name}" for name, count in found.emotions.most_common())
    yield (
        f"{len(found.clips)} clips, {speakers}: {counts or 'no emotions'}; {found.captioned} with "
        f"captions; {len(found.faults)} cannot be used"
    )
    if len(found.emotions) > 1:
        yield "an emotion head is fitted to the labels, and tried on clips that it has not met"
    if captions and found.captioned >= LEAST_CAPTIONS:
        yield f"the language model learns from captions, {steps_for(len(found.clips))} steps"
    elif captions and found.captioned:
        yield too_few(found.captioned)


def too_few(captioned: int) -> str:
    """That the language model does not learn from so few clips with captions."""
    return (
        f"the language model stays: {captioned} clips have captions, and it takes {LEAST_CAPTIONS}"
    )


def steps_for(clips: int) -> int:
    """Steps of the language model for so many clips."""
    return int(np.clip(STEPS_A_CLIP * clips, FEWEST_STEPS, MOST_STEPS))


def finetune(
    found: OwnClips,
    model: Path,
    out: Path,
    *,
    captions: bool,
    progress: Progress | None = None,
) -> FinetuneReport:
    """Adapt the exported `model` to clips and write the exported folder `out`.

    With `captions` the language model learns from captions where there are enough (needs torch).
    What was done is kept in `out`.work until all is; the same call goes on.
    """
    begun = time.monotonic()
    meta = check_model(model)
    work = out.with_name(f"{out.name}.work")
    heard = hear(
        found,
        builtin.open_builtin(model),
        work,
        max_speech_s=meta.limits.max_speech_s,
        progress=progress,
    )
    check_clips(OwnClips(heard.clips, (*found.faults, *heard.faults)))
    head, report, tokens = None, None, list(heard.tokens)
    if len({one.emotion for one in heard.clips if one.emotion}) > 1:
        head, report, tokens = adapt_head(heard)
    adapted, language = work / "adapted", None
    write_adapted(model, adapted, head, name=out.name, made={"own clips": str(len(heard.clips))})
    captioned = sum(bool(one.captions) for one in heard.clips) if captions else 0
    with atomic_folder(out) as partial:
        if captioned >= LEAST_CAPTIONS:
            language = adapt_language(heard, tokens, adapted, work, out=partial / "model")
            for path in (partial / "model").iterdir():
                path.rename(partial / path.name)
            (partial / "model").rmdir()
        else:
            shutil.copytree(adapted, partial, dirs_exist_ok=True)
        done = FinetuneReport(
            clips=len(heard.clips),
            head=report,
            language=language,
            few_captions=0 if language else captioned,
            faults=(*found.faults, *heard.faults),
            seconds=time.monotonic() - begun,
        )
        told = {**asdict(done), "faults": len(done.faults)}
        write_atomic(partial / REPORT_FILE, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(work)
    return done
