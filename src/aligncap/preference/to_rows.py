"""From a store to preference rows: what DPO, the reward model and PPO learn from."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aligncap.alignment.data import TrainingRow, one_source, read_rows, read_source
from aligncap.errors import DataError
from aligncap.preference.row_clips import is_as_it_is, utterance_of
from aligncap.preference.rows import PreferenceRow, write_preference_rows
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import Clip, PreferencePair, Provenance
from aligncap.values import LANGUAGES


def write_store_rows(
    store: PreferenceStore, out: Path, training: Sequence[Path]
) -> tuple[int, int, int]:
    """Write the latest pairs of a store as preference rows; `training` are rows of its clips.

    Returns how many rows and pairs were written, and how many clips of the store are in none of
    the training rows. DataError where all are, or where the store holds no pairs.
    """
    builder = store.pairs.latest()
    source = one_source({path: read_source(path) for path in training})
    known = {clip.utterance: clip for clip in store.clips()}
    heard = [
        (row, known.pop(utterance_of(row)))
        for path in training
        for row in read_rows(path)
        if row.speech is not None and is_as_it_is(row) and utterance_of(row) in known
    ]
    if not heard:
        raise DataError(
            f"{training[0]}: holds no clip of {store.path}; name the training rows that were made "
            "from the manifest of the candidates"
        )
    rows = list(preference_rows(store, heard, builder=builder, source=None, languages=LANGUAGES))
    write_preference_rows(out, source, rows)
    return len(rows), sum(len(row.pairs) for row in rows), len(known)


def preference_rows(
    store: PreferenceStore,
    clips: Sequence[tuple[TrainingRow, Clip]],
    *,
    builder: str,
    source: Provenance | None,
    languages: Iterable[str],
) -> Iterator[PreferenceRow]:
    """Each clip and language that has candidates of `source` (None: of any model), with the pairs
    of `builder`.

    A clip without a pair has a row all the same: PPO reads clips, not pairs.
    """
    pairs: dict[tuple[str, str], list[PreferencePair]] = defaultdict(list)
    for pair in store.pairs.all(builder):
        pairs[pair.utterance, pair.language].append(pair)
    for training, clip in clips:
        for language in languages:
            own = pairs[clip.utterance, language]
            texts = {
                candidate.key: candidate.text
                for candidate in store.candidates(clip.utterance, language, source)
                if candidate.method != "gold"
            }
            # The corpus' caption takes part only where it was paired.
            texts |= {
                side.key: side.text
                for pair in own
                for side in (pair.chosen, pair.rejected)
                if side.key not in texts
            }
            if texts:
                yield _row(training, clip, language, texts, own)


def _row(
    training: TrainingRow,
    clip: Clip,
    language: str,
    texts: dict[str, str],
    pairs: Sequence[PreferencePair],
) -> PreferenceRow:
    place = {key: number for number, key in enumerate(texts)}
    return PreferenceRow(
        clip=replace(
            training,
            captions={language: tuple(texts.values())},
            weight=1.0,
            act={},
            measured=_of_language(training.measured, language),
            heard=_of_language(training.heard, language),
            transcript="",
        ),
        pairs=tuple((place[pair.chosen.key], place[pair.rejected.key]) for pair in pairs),
        facts=clip.facts,
        emotion=clip.emotion,
        gender=clip.gender,
        references=dict(clip.references),
    )


def _of_language(acts: Mapping[str, str], language: str) -> dict[str, str]:
    return {language: acts[language]} if language in acts else {}
