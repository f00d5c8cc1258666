"""Several captions of each clip, from one model, into a store (decision 11).

The model encodes a clip's prompt once for all of them. Captions that say the same in their normal
form count once; each keeps its token ids and log-probability.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Protocol

from pydantic import Field

from aligncap import __version__
from aligncap.captioner.captioner import Heard
from aligncap.captioner.choosing import Wording
from aligncap.captioner.runtime import DecodeOptions, Sampling
from aligncap.clues import detect_language
from aligncap.corpora import Utterance, write_captions
from aligncap.corpora.manifest import trusted_gender
from aligncap.errors import AlignCapError, DataError
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import SEARCHED, Candidate, Clip, Finding, Provenance, normal_form
from aligncap.recipes import one_of, recipe_section
from aligncap.values import Facts


class Model(Protocol):
    """What is asked for captions; a `Captioner` is one."""

    options: DecodeOptions
    """How it captions by itself."""

    def hear_many(
        self, sources: Iterable[Path], *, language: str, options: DecodeOptions
    ) -> Iterator[Heard | AlignCapError]:
        """For each recording all that is asked for, best first, or what is wrong with it."""


@recipe_section
class CandidateOptions:
    """How candidates are looked for."""

    count: Annotated[int, Field(ge=2)] = 5
    """Candidates of a clip, at most."""
    method: Annotated[str, one_of(SEARCHED)] = "beam"
    """"beam": the best of a beam search; "diverse": the best of as many groups of beams, which
    needs the torch runtime; "sample": drawn."""
    diversity: float = 0.5
    """What a token costs for each earlier group that has just chosen it."""
    temperature: float = 1.0
    top_p: float = 0.95
    """Samples are drawn from the fewest tokens whose probability exceeds it."""
    seed: int = 0


def decode_options(options: CandidateOptions, base: DecodeOptions) -> DecodeOptions:
    """How the model searches; `base` is how it captions by itself."""
    count = options.count
    if options.method == "sample":
        sampling = Sampling(temperature=options.temperature, top_p=options.top_p, seed=options.seed)
        return replace(base, beam_size=1, captions=count, sampling=sampling)
    if options.method == "diverse":
        return replace(
            base, beam_size=count, captions=count, groups=count, diversity=options.diversity
        )
    beams = max(count, base.beam_size)
    return replace(base, beam_size=beams, captions=beams)


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
    model: Model,
    store: PreferenceStore,
    *,
    options: CandidateOptions,
    provenance: Provenance,
    language: str,
    root: Path,
) -> Iterator[Finding | AlignCapError]:
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

    decoding = decode_options(options, model.options)
    for heard in model.hear_many(files(), language=language, options=decoding):
        utterance = waiting.popleft()
        if isinstance(heard, AlignCapError):
            yield heard
            continue
        clip = clip_of(utterance, heard.utterance.facts, root=root)
        found = Finding(clip, language, distinct(clip, language, heard.wordings, options))
        gold = Finding(clip, language, gold_of(utterance, clip, language))
        try:
            store.add_findings([(found, provenance), (gold, GOLD)])
        except DataError as error:
            yield error
        else:
            yield found


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
    whole = Path(os.path.abspath(path))  # noqa: PTH100
    folder = Path(os.path.abspath(root))  # noqa: PTH100
    return (whole.relative_to(folder) if whole.is_relative_to(folder) else whole).as_posix()


def distinct(
    clip: Clip, language: str, wordings: Sequence[Wording], options: CandidateOptions
) -> tuple[Candidate, ...]:
    """The first `count` that say something, and something else than those before them."""
    once: dict[str, Candidate] = {}
    for wording in wordings:
        if normal_form(wording.text):
            one = Candidate(
                utterance=clip.utterance,
                language=language,
                text=wording.text,
                token_ids=wording.hypothesis.ids,
                log_probability=wording.hypothesis.log_probability,
                method=options.method,
            )
            once.setdefault(one.key, one)
    return tuple(once.values())[: options.count]


def gold_of(utterance: Utterance, clip: Clip, language: str) -> tuple[Candidate, ...]:
    """The corpus' caption, or one written from its labels; empty where neither is there."""
    texts = write_captions(utterance, clip.facts, language=language, count=1, seed=0)
    return tuple(Candidate(clip.utterance, language, text, method="gold") for text in texts)
