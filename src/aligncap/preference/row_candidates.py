"""Candidates of the clips of training rows, many prompts at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from aligncap.captioner.runtime import DecodeOptions
from aligncap.captioner.writing import Writer
from aligncap.preference.candidates import (
    GOLD,
    CandidateOptions,
    decode_options,
    distinct,
    gold_of,
)
from aligncap.preference.row_clips import RowClip
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import Finding, Provenance
from aligncap.training import seed_of

TOGETHER = 64
"""Clips that are written of, and kept, at once."""


def find_row_candidates(
    clips: Sequence[RowClip],
    writer: Writer,
    store: PreferenceStore,
    *,
    options: CandidateOptions,
    provenance: Provenance,
    language: str,
) -> Iterator[int]:
    """Keep the candidates of each clip that has none of this provenance yet.

    Gives how many clips are done, once they are in the store. Clips are always written of in the
    same company, so a run that was killed draws what it would have drawn.
    """
    done = store.found(provenance)
    base = decode_options(options, writer.options(max(1, options.count)))
    for number, start in enumerate(range(0, len(clips), TOGETHER)):
        group = clips[start : start + TOGETHER]
        if any((one.clip.utterance, language) not in done for one in group):
            spoken = [one.spoken(writer.meta.act_mode, language) for one in group]
            wordings = writer.write(spoken, language=language, options=_seeded(base, number))
            kept = []
            for one, said in zip(group, wordings, strict=True):
                found = distinct(one.clip, language, said, options)
                gold = gold_of(one.utterance, one.clip, language)
                kept.append((Finding(one.clip, language, found), provenance))
                kept.append((Finding(one.clip, language, gold), GOLD))
            store.add_findings(kept)
        yield len(group)


def _seeded(options: DecodeOptions, number: int) -> DecodeOptions:
    """Each group of clips with draws of its own."""
    if options.sampling is None:
        return options
    seed = seed_of(options.sampling.seed, number)
    return replace(options, sampling=replace(options.sampling, seed=seed))
