"""From a store to preference rows: what DPO, the reward model and PPO learn from."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from aligncap.preference.row_clips import RowClip
from aligncap.preference.rows import PreferenceRow
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import PreferencePair, Provenance


def preference_rows(
    store: PreferenceStore,
    clips: Sequence[RowClip],
    *,
    builder: str,
    source: Provenance,
    languages: Iterable[str],
) -> Iterator[PreferenceRow]:
    """Each clip and language that has candidates of `source`, with the pairs of `builder`.

    A clip without a pair has a row all the same: PPO reads clips, not pairs.
    """
    pairs: dict[tuple[str, str], list[PreferencePair]] = defaultdict(list)
    for pair in store.pairs.all(builder):
        pairs[pair.utterance, pair.language].append(pair)
    for one in clips:
        for language in languages:
            own = pairs[one.clip.utterance, language]
            texts = {
                candidate.key: candidate.text
                for candidate in store.candidates(one.clip.utterance, language, source)
            }
            # The corpus' caption takes part only where it was paired.
            texts |= {
                side.key: side.text
                for pair in own
                for side in (pair.chosen, pair.rejected)
                if side.key not in texts
            }
            if texts:
                yield _row(one, language, texts, own)


def _row(
    one: RowClip, language: str, texts: dict[str, str], pairs: Sequence[PreferencePair]
) -> PreferenceRow:
    place = {key: number for number, key in enumerate(texts)}
    clip = replace(
        one.row,
        captions={language: tuple(texts.values())},
        weight=1.0,
        act={},
        measured=_of_language(one.row.measured, language),
        heard=_of_language(one.row.heard, language),
        transcript="",
    )
    return PreferenceRow(
        clip=clip,
        pairs=tuple((place[pair.chosen.key], place[pair.rejected.key]) for pair in pairs),
        facts=one.clip.facts,
        emotion=one.clip.emotion,
        gender=one.clip.gender,
        references=dict(one.clip.references),
    )


def _of_language(acts: Mapping[str, str], language: str) -> dict[str, str]:
    return {language: acts[language]} if language in acts else {}
