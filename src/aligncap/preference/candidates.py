"""Several captions of each clip, from one model, into a store (decision 11).

The model encodes a clip's prompt once for all of them. Captions that are the same in their normal
form count once; each keeps its token ids and log-probability. `find_candidates` reads recordings;
`find_row_candidates` takes clips of training rows, whose speech tokens are there already: a row has
tokens and P_act, a manifest labels and people's captions, the cache of facts what was measured.
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Annotated, Protocol

from pydantic import Field, NonNegativeInt

from aligncap import __version__
from aligncap.alignment.examples import (
    SPLITS,
    SpeechSource,
    TrainingRow,
    read_rows,
    read_source,
    student_input,
)
from aligncap.captioner.captioner import CaptionGenerator, StudentInput
from aligncap.captioner.checkpoint import ModelMeta
from aligncap.captioner.choosing import CaptionCandidates
from aligncap.captioner.prompts import student_acoustic_prompt
from aligncap.captioner.record import CaptionHypothesis
from aligncap.captioner.runtimes import DecodeOptions, Sampling
from aligncap.clues import detect_language
from aligncap.clues.evidence import Claim
from aligncap.data.captions import write_captions
from aligncap.data.manifest import Utterance, measure_all, read_manifest, trusted_gender
from aligncap.errors import AlignCapError, DataError, RecipeError
from aligncap.preference.store import (
    METHODS,
    Candidate,
    Clip,
    ClipCandidates,
    PreferenceStore,
    Provenance,
    normal_form,
)
from aligncap.preference.variety import WordList, claim_set, varied_acts
from aligncap.recipes import one_of, recipe_section
from aligncap.storage import printable
from aligncap.training.settings import seed_of
from aligncap.values import LANGUAGES, Facts


class CaptionSource(Protocol):
    """What candidates come from; a `Captioner` is one."""

    options: DecodeOptions
    """Its own decode options."""

    @property
    def generator(self) -> CaptionGenerator:
        """Its language model: what the method "claims" asks again."""

    def generate_many(
        self, sources: Iterable[Path], *, language: str, options: DecodeOptions
    ) -> Iterator[CaptionCandidates | AlignCapError]:
        """For each recording the captions asked for, best first, or what is wrong with it."""


@recipe_section
class CandidateOptions:
    """How candidates are generated."""

    count: Annotated[int, Field(ge=2)] = 5
    """Candidates of a clip, at most."""
    method: Annotated[str, one_of(METHODS[:4])] = "beam"
    """"beam": the best of a beam search; "diverse": the best of as many groups of beams, which
    needs the torch runtime; "sample": sampled; "claims": the best of each of several prompts, as
    if the model had heard something else (`preference.variety`), no two of one claim."""
    diversity: float = 0.5
    """What a token costs for each earlier group that has just chosen it."""
    temperature: float = 1.0
    top_p: float = 0.95
    """Samples are of the fewest tokens whose probability exceeds it."""
    seed: int = 0


CLAIM_BEAMS = 4
"""Beams of each prompt of the method "claims", at most: no more than the model has by itself."""

PROMPTS_A_CANDIDATE = 3
"""Prompts of the method "claims" for each candidate wanted: some come to the same."""


def decode_options(options: CandidateOptions, base: DecodeOptions) -> DecodeOptions:
    """Decode options for all candidates of a clip at once; `base` are the model's own."""
    count = options.count
    if options.method == "sample":
        sampling = Sampling(temperature=options.temperature, top_p=options.top_p, seed=options.seed)
        return replace(base, beam_size=1, captions=count, sampling=sampling)
    if options.method == "claims":  # one of each prompt
        return replace(base, beam_size=min(CLAIM_BEAMS, base.beam_size), captions=1)
    if options.method == "diverse":
        return replace(
            base, beam_size=count, captions=count, groups=count, diversity=options.diversity
        )
    beams = max(count, base.beam_size)
    return replace(base, beam_size=beams, captions=beams)


def check_claims(meta: ModelMeta) -> None:
    """RecipeError for a model that reads no P_act, which candidates by claims change."""
    if meta.act_mode == "none":
        raise RecipeError(
            "the method 'claims' changes the acoustic prompt, and the model reads none; take "
            "'sample'"
        )


def provenance_of(
    options: CandidateOptions, base: DecodeOptions, *, model: str, fingerprint: str
) -> Provenance:
    """Everything that the candidates depend on."""
    return Provenance(
        model=model,
        fingerprint=fingerprint,
        method=options.method,
        options=MappingProxyType({"count": options.count, **asdict(decode_options(options, base))}),
        seed=options.seed,
        version=__version__,
    )


GOLD = Provenance(model="corpus", fingerprint="", method="gold", version=__version__)
"""Captions that the corpus has or that are written from its labels, for the second reading of
decision 11."""


def find_candidates(
    utterances: Iterable[Utterance],
    model: CaptionSource,
    store: PreferenceStore,
    *,
    options: CandidateOptions,
    provenance: Provenance,
    language: str,
    root: Path,
) -> Iterator[ClipCandidates | AlignCapError]:
    """Keep the candidates of each utterance that has none of this provenance yet.

    Gives what was found of each, once it is in the store, or what is wrong with the recording.
    File names are kept relative to `root`.
    """
    done = store.found(provenance)
    waiting: deque[Utterance] = deque()

    def files() -> Iterator[Path]:
        for utterance in utterances:
            if (utterance.id, language) not in done:
                waiting.append(utterance)
                yield utterance.path

    if options.method == "claims":
        check_claims(model.generator.meta)
    decoding = decode_options(options, model.options)
    for result in model.generate_many(files(), language=language, options=decoding):
        utterance = waiting.popleft()
        if isinstance(result, AlignCapError):
            yield result
            continue
        clip = clip_of(utterance, result.speech.facts, root=root)
        hypotheses = result.hypotheses
        if options.method == "claims":
            more = _claiming_otherwise(model.generator, result, clip, language, options, decoding)
            hypotheses = (*hypotheses, *more)
        captions = distinct(clip, language, hypotheses, options)
        found = ClipCandidates(clip, language, captions)
        gold = ClipCandidates(clip, language, gold_of(utterance, clip, language))
        try:
            store.add_findings([(found, provenance), (gold, GOLD)])
        except DataError as error:
            yield error
        else:
            yield found


def _claiming_otherwise(
    generator: CaptionGenerator,
    found: CaptionCandidates,
    clip: Clip,
    language: str,
    options: CandidateOptions,
    decoding: DecodeOptions,
) -> Iterator[CaptionHypothesis]:
    """Captions of a clip as if other things had been heard in it."""
    speech, meta = found.speech, generator.meta
    act = student_acoustic_prompt(
        meta.act_mode, speech.facts, speech.tokens, language, weighed=meta.plans
    )
    _, *others = inputs_of(StudentInput(speech.tokens, act), clip.utterance, language, options)
    return chain.from_iterable(generator.generate(others, language=language, options=decoding))


def clip_of(utterance: Utterance, facts: Facts, *, root: Path) -> Clip:
    """What a store keeps of an utterance."""
    by_language: dict[str, tuple[str, ...]] = {}
    for text in utterance.captions:
        language = detect_language(text)
        by_language[language] = (*by_language.get(language, ()), text)
    return Clip(
        utterance=utterance.id,
        file=stored_file(utterance.path, root),
        facts=facts,
        emotion=utterance.emotion,
        gender=trusted_gender(utterance),
        references=MappingProxyType(by_language),
    )


def stored_file(path: Path, root: Path) -> str:
    """A file as a store names it: relative to `root` where it is inside of it, else absolute."""
    # Links are left as they are: whoever serves the file decides whether to follow them.
    full = Path(os.path.abspath(path))  # noqa: PTH100
    folder = Path(os.path.abspath(root))  # noqa: PTH100
    inside = full.relative_to(folder) if full.is_relative_to(folder) else full
    return printable(inside.as_posix())


def distinct(
    clip: Clip,
    language: str,
    captions: Sequence[CaptionHypothesis],
    options: CandidateOptions,
    words: WordList | None = None,
) -> tuple[Candidate, ...]:
    """The first `count` captions that are not empty, hold no word that `words` lacks, and differ
    from those before them: of the method "claims" in what they claim."""
    once: dict[str, Candidate] = {}
    claimed: set[frozenset[Claim]] = set()
    for caption in captions:
        if normal_form(caption.text) and (words is None or words.knows(caption.text)):
            if options.method == "claims":
                claims = claim_set(caption.text, language)
                if claims in claimed:
                    continue
                claimed.add(claims)
            one = Candidate(
                utterance=clip.utterance,
                language=language,
                text=caption.text,
                token_ids=caption.hypothesis.ids,
                log_probability=caption.hypothesis.log_probability,
                method=options.method,
            )
            once.setdefault(one.key, one)
    return tuple(once.values())[: options.count]


def gold_of(utterance: Utterance, clip: Clip, language: str) -> tuple[Candidate, ...]:
    """The corpus' caption, or one written from its labels; empty where neither is there."""
    texts = write_captions(utterance, clip.facts, language=language, count=1, seed=0)
    return tuple(Candidate(clip.utterance, language, text, method="gold") for text in texts)


@recipe_section
class RowClipSettings:
    """Which clips get candidates."""

    rows: Path
    """Training rows; of each clip only the unchanged view counts (`…#0`)."""
    manifests: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Of the corpora that the rows are of."""
    facts: Path
    """What was measured when the rows were made; what is not there is measured into it."""
    clips: NonNegativeInt = 1000
    """Training clips, as many of each corpus as there are; 0 = all."""
    validation_clips: NonNegativeInt = 200
    """Clips of validation speakers, chosen alike: what the implicit reward is validated on."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = LANGUAGES


@dataclass(frozen=True, slots=True)
class RowClip:
    """A clip of a training row, with its manifest's utterance."""

    row: TrainingRow
    utterance: Utterance
    clip: Clip

    def student_input(self, meta: ModelMeta, language: str) -> StudentInput:
        """Its speech tokens, P_act and plan, as a captioner takes them."""
        return student_input(self.row, meta, language)


def read_row_clips(settings: RowClipSettings) -> tuple[list[RowClip], SpeechSource]:
    """The clips that the settings ask for, and the tokenizer of their codes.

    DataError where a row's clip is in none of the manifests.
    """
    kept = [row for row in read_rows(settings.rows) if row.speech is not None and is_unchanged(row)]
    limits = dict(zip(SPLITS, (settings.clips, settings.validation_clips), strict=True))
    rows = [
        row
        for split, limit in limits.items()
        for row in spread([row for row in kept if row.split == split], limit)
    ]
    source = read_source(settings.rows)
    return join(rows, settings.manifests, settings.facts), source


def join(rows: Sequence[TrainingRow], manifests: Iterable[Path], facts: Path) -> list[RowClip]:
    """Each row with what its manifest says and what was measured."""
    utterances = {one.id: one for path in manifests for one in read_manifest(path)}
    found = []
    for row in rows:
        name = utterance_of(row)
        if name not in utterances:
            raise DataError(f"{name}: is in none of the manifests; name those the rows are of")
        found.append(utterances[name])
    measured = measure_all(facts, [one.path for one in found])
    return [
        RowClip(row, utterance, clip_of(utterance, shown, root=Path()))
        for row, utterance, shown in zip(rows, found, measured, strict=True)
    ]


def spread(rows: Sequence[TrainingRow], limit: int, *, seed: int = 0) -> list[TrainingRow]:
    """At most `limit` random rows (0 = all), as many of each corpus as far as it has them."""
    if not limit:
        return list(rows)
    by_corpus: dict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        by_corpus[row.corpus].append(row)
    for corpus, own in by_corpus.items():
        Random(f"{seed}/{corpus}").shuffle(own)
    turns = chain.from_iterable(zip_longest(*by_corpus.values()))
    return [row for row in turns if row is not None][:limit]


def utterance_of(row: TrainingRow) -> str:
    """The id in the manifest of a row's clip."""
    name, _, _ = row.id.rpartition("#")
    return name or row.id


def is_unchanged(row: TrainingRow) -> bool:
    """Whether a row is of the clip itself, not of an augmented view."""
    return "#" not in row.id or row.id.endswith("#0")


BATCH_SIZE = 64
"""Clips that are captioned, and kept, at once."""


def inputs_of(
    heard: StudentInput, name: str, language: str, options: CandidateOptions
) -> list[StudentInput]:
    """What a model is asked with for the candidates of a clip: once, or with the method "claims"
    with one P_act after another, where anything was heard."""
    if options.method != "claims" or not heard.act:
        return [heard]
    count = PROMPTS_A_CANDIDATE * options.count
    rng = Random(f"{options.seed}/{language}/{name}")
    # The model chooses the plan: that of the clip may not fit what else is said of it.
    return [StudentInput(heard.tokens, one) for one in varied_acts(heard.act, language, count, rng)]


def find_row_candidates(
    clips: Sequence[RowClip],
    generator: CaptionGenerator,
    store: PreferenceStore,
    *,
    options: CandidateOptions,
    provenance: Provenance,
    language: str,
    words: WordList | None = None,
) -> Iterator[int]:
    """Keep the candidates of each clip that has none of this provenance yet.

    Gives how many clips are done, once they are in the store. Clips are always captioned in the
    same batches, so a run that was killed samples what it would have sampled. Captions with a word
    that `words` lacks are dropped.
    """
    if options.method == "claims":
        check_claims(generator.meta)
    done = store.found(provenance)
    base = decode_options(options, generator.options(max(1, options.count)))
    for number, start in enumerate(range(0, len(clips), BATCH_SIZE)):
        batch = clips[start : start + BATCH_SIZE]
        if any((one.clip.utterance, language) not in done for one in batch):
            decoding = base
            if base.sampling is not None:
                sampling = replace(base.sampling, seed=seed_of(base.sampling.seed, number))
                decoding = replace(base, sampling=sampling)
            asked = [
                inputs_of(
                    one.student_input(generator.meta, language),
                    one.clip.utterance,
                    language,
                    options,
                )
                for one in batch
            ]
            inputs = list(chain.from_iterable(asked))
            captions = iter(generator.generate(inputs, language=language, options=decoding))
            kept = []
            for one, own in zip(batch, asked, strict=True):
                texts = list(chain.from_iterable(islice(captions, len(own))))
                found = distinct(one.clip, language, texts, options, words)
                gold = gold_of(one.utterance, one.clip, language)
                kept.append((ClipCandidates(one.clip, language, found), provenance))
                kept.append((ClipCandidates(one.clip, language, gold), GOLD))
            store.add_findings(kept)
        yield len(batch)
