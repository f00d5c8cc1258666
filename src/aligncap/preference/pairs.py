"""Pairs from judged candidates (decision 11): the best against each of the rest.

Ties and margins under a threshold are dropped. The second reading of y_g in Eq. 6, a caption of the
corpus against the best candidate (decision 11), is there for whoever asks.

Pairs as JSON lines that other trainers read, and back again, exactly.

`trl`            {"prompt": instruction, "chosen": caption, "rejected": caption}
`llama-factory`  sharegpt with ranking: {"conversations": [{"from": "human", "value":
                 "<audio>instruction"}], "chosen": {"from": "gpt", "value": caption},
                 "rejected": …, "audios": [file]}

Each row has one key more, "aligncap", with what the formats have no place for; others ignore it.
Rows without it, made elsewhere, are read as well.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat

from aligncap import __version__
from aligncap.captioner.prompts import INSTRUCTIONS
from aligncap.clues import detect_language
from aligncap.data.manifest import read_rows
from aligncap.errors import AlignCapError, DataError, UnknownNameError
from aligncap.metrics.judge import text_of_content
from aligncap.preference.judges import combined
from aligncap.preference.store import (
    Candidate,
    Clip,
    ClipCandidates,
    Judgement,
    PreferencePair,
    PreferenceStore,
    Provenance,
)
from aligncap.preference.variety import Balance, Variety, balanced_pairs, variety_of
from aligncap.recipes import recipe_section
from aligncap.storage import atomic_file, hash_of_file

Scores = Mapping[str, Judgement]
"""Judgements by the candidates' keys."""


@recipe_section
class PairOptions:
    """How pairs are made."""

    least_margin: NonNegativeFloat = 0.1
    """A pair whose scores are nearer than this is dropped; a tie always is."""
    gold: bool = False
    """Also the corpus' caption against the best candidate."""
    differ: bool = False
    """Pair captions that differ in what they claim only, and so that no opening is chosen oftener
    than it is rejected, as far as that can be (`preference.variety`)."""
    near: NonNegativeFloat = 0.05
    """differ: how far under the best of a clip's scores a caption may be that is chosen."""
    judges: Annotated[Mapping[str, PositiveFloat], Field(min_length=1)] = field(
        default_factory=lambda: MappingProxyType({"evidence": 1.0})
    )
    """Names of judges and the weight of each."""


def best_against_rest(
    candidates: Sequence[Candidate], scores: Scores, *, least_margin: NonNegativeFloat
) -> Iterator[PreferencePair]:
    """The best of a clip's candidates against each of the rest, the clearest first.

    Of equally good ones the most probable is the best. Candidates without a score take no part.
    """
    ranked = _ranked(candidates, scores)
    for other in reversed(ranked[1:]):
        yield from _pair(ranked[0], other, scores, least_margin)


def gold_against_best(
    candidates: Sequence[Candidate], scores: Scores, *, least_margin: NonNegativeFloat
) -> Iterator[PreferencePair]:
    """The corpus' caption against the model's best.

    Only where the judge likes it better: else the pair would teach against the judge.
    """
    gold = [one for one in candidates if one.method == "gold" and one.key in scores]
    for best in _ranked(candidates, scores)[:1]:
        for one in gold[:1]:
            yield from _pair(one, best, scores, least_margin)


def pair_all(
    store: PreferenceStore, options: PairOptions, *, source: Provenance | None = None
) -> Iterator[int]:
    """Make the pairs of every clip of a store, in place of earlier ones made the same way.

    With a `source`, only of the candidates that it found. Gives the number of pairs of each clip
    once they are in the store. DataError where a judge has judged nothing.
    """
    signatures = {name: store.latest_judge(name) for name in options.judges}
    builder = builder_of(options, signatures, source)
    store.pairs.begin(builder)
    balance = Balance()
    for clip, language, _ in store.groups(source):
        candidates = store.candidates(clip.utterance, language, source)
        by_judge = {
            name: store.judgements(clip.utterance, language, signature)
            for name, signature in signatures.items()
        }
        scores = combined(by_judge, options.judges)
        pairs = list(_pairs_of(candidates, scores, options, balance))
        if options.gold:
            everyone = store.candidates(clip.utterance, language)
            gold = [one for one in everyone if one.method == "gold"]
            pairs += gold_against_best(
                [*candidates, *gold], scores, least_margin=options.least_margin
            )
        store.pairs.put(clip.utterance, language, builder, pairs)
        yield len(pairs)


def _pairs_of(
    candidates: Sequence[Candidate], scores: Scores, options: PairOptions, balance: Balance
) -> Iterator[PreferencePair]:
    if not options.differ:
        return best_against_rest(candidates, scores, least_margin=options.least_margin)
    return balanced_pairs(
        _ranked(candidates, scores),
        lambda one: scores[one.key].score,
        balance,
        least_margin=options.least_margin,
        near=options.near,
    )


def variety(store: PreferenceStore, source: Provenance | None = None) -> Variety:
    """How far the candidates, of a source or of all models, and the latest pairs differ."""
    groups = (
        [one for one in candidates if one.method != "gold"]
        for _, _, candidates in store.groups(source)
    )
    return variety_of(groups, list(store.pairs.all(store.pairs.latest())))


def builder_of(
    options: PairOptions, signatures: Mapping[str, str], source: Provenance | None
) -> str:
    """Everything that the pairs depend on: "pairs|margin:0.1|gold:no|source:all|judges:…"."""
    judges = "+".join(f"{options.judges[name]:g}*({one})" for name, one in signatures.items())
    return (
        f"pairs|margin:{options.least_margin:g}|gold:{'yes' if options.gold else 'no'}"
        f"{f'|differ:near-{options.near:g}' if options.differ else ''}"
        f"|source:{source.key if source else 'all'}|judges:{judges}|v{__version__}"
    )


def _ranked(candidates: Sequence[Candidate], scores: Scores) -> list[Candidate]:
    """Those a model gave and a judge has judged, the best first."""
    judged = [one for one in candidates if one.method != "gold" and one.key in scores]
    return sorted(
        judged,
        key=lambda one: (
            -scores[one.key].score,
            -(one.log_probability if one.log_probability is not None else float("-inf")),
            one.key,
        ),
    )


def _pair(
    chosen: Candidate, rejected: Candidate, scores: Scores, least_margin: NonNegativeFloat
) -> Iterator[PreferencePair]:
    margin = scores[chosen.key].score - scores[rejected.key].score
    if margin > 0 and margin >= least_margin and chosen.key != rejected.key:
        yield PreferencePair(chosen, rejected, margin)


Row = dict[str, Any]

OWN = "aligncap"
"""The key of what is ours."""


def _trl(pair: PreferencePair, _file: str) -> Row:
    return {
        "prompt": INSTRUCTIONS[pair.language].strip(),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
    }


def _llama_factory(pair: PreferencePair, file: str) -> Row:
    asked = {"from": "human", "value": f"<audio>{INSTRUCTIONS[pair.language].strip()}"}
    return {
        "conversations": [asked],
        "chosen": {"from": "gpt", "value": pair.chosen.text},
        "rejected": {"from": "gpt", "value": pair.rejected.text},
        "audios": [file],
    }


FORMATS: Mapping[str, Callable[[PreferencePair, str], Row]] = MappingProxyType(
    {"trl": _trl, "llama-factory": _llama_factory}
)
"""Name → a row of a pair and the file of its recording."""


def write_pairs(
    path: Path,
    pairs: Iterable[tuple[PreferencePair, str]],
    *,
    format: str,  # noqa: A002
) -> int:
    """Write pairs, each with the file of its recording; returns how many.

    The file appears only when it is whole.
    """
    if format not in FORMATS:
        raise UnknownNameError("format of pairs", format, FORMATS)
    count = 0
    with atomic_file(path) as lines:
        for pair, file in pairs:
            row = {**FORMATS[format](pair, file), OWN: _own(pair, file)}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_pairs(path: Path) -> Iterator[tuple[PreferencePair, str]]:
    """The pairs of a file in either format, each with the file of its recording ("" if not told).

    Raises DataError, which names the line, at the first that is no pair.
    """
    for place, row in read_rows(path, what="pairs"):
        yield _read(row, path, place)


def import_pairs(store: PreferenceStore, path: Path) -> int:
    """Put the pairs of a file into a store, as the latest way of pairing; returns how many."""
    fingerprint = hash_of_file(path) if path.is_file() else ""
    builder = f"imported|{path.name}|sha256:{fingerprint[:16]}"
    groups: dict[tuple[str, str], dict[tuple[str, str], PreferencePair]] = {}
    files: dict[tuple[str, str], str] = {}
    for pair, file in read_pairs(path):
        group = pair.utterance, pair.language
        if file != (other := files.setdefault(group, file)):
            raise DataError(
                f"{path}: clip {pair.utterance!r} is of two recordings, {other!r} and {file!r}; "
                "give each an id of its own"
            )
        # Of pairs whose captions differ in spelling only the first counts.
        pairs = groups.setdefault(group, {})
        pairs.setdefault((pair.chosen.key, pair.rejected.key), pair)
    if not groups:
        raise DataError(f"{path}: holds no pair; write one a line")
    for (utterance, language), pairs in groups.items():
        once = {one.key: one for pair in pairs.values() for one in (pair.rejected, pair.chosen)}
        clip = Clip(utterance, files[utterance, language])
        found = []
        for method in sorted({one.method for one in once.values()}):
            source = Provenance(model=path.name, fingerprint=fingerprint, method=method)
            candidates = tuple(one for one in once.values() if one.method == method)
            found.append((ClipCandidates(clip, language, candidates), source))
        store.add_findings(found)
        store.pairs.put(utterance, language, builder, list(pairs.values()))
    store.pairs.begin(builder)
    return sum(map(len, groups.values()))


def _own(pair: PreferencePair, file: str) -> Row:
    return {
        "utterance": pair.utterance,
        "language": pair.language,
        "file": file,
        "margin": pair.margin,
        "chosen": _details(pair.chosen),
        "rejected": _details(pair.rejected),
    }


def _details(candidate: Candidate) -> Row:
    return {
        "token_ids": list(candidate.token_ids),
        "log_probability": candidate.log_probability,
        "method": candidate.method,
    }


def _read(row: Row, path: Path, place: str) -> tuple[PreferencePair, str]:
    try:
        own = row.get(OWN) or {}
        if not isinstance(own, dict):
            raise TypeError(f"{OWN!r} is no object")
        chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
        file = _audio(row)
        # Who made the row elsewhere may name no clip.
        name = _name(row) or file or f"{path.stem}:{place.rpartition(':')[2]}"
        utterance = own.get("utterance", name)
        languages = [own.get("language") or detect_language(text) for text in (chosen, rejected)]
        if languages[0] != languages[1]:
            raise TypeError("'chosen' and 'rejected' are in two languages")
        language = languages[0]
        pair = PreferencePair(
            _candidate(utterance, language, chosen, own.get("chosen")),
            _candidate(utterance, language, rejected, own.get("rejected")),
            # Who made the row elsewhere did not say by how much.
            own.get("margin", 1.0),
        )
        return pair, str(own.get("file", file))
    except AlignCapError as error:
        raise DataError(f"{place}: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{place}: is no pair: {reason}; each line holds prompt, chosen and rejected, or "
            "conversations, chosen and rejected"
        ) from error


def _name(row: Row) -> str:
    """The name of the clip, which may be a whole number; "" if the row has none."""
    name = row.get("id")
    if name is None or name == "":
        return ""
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise TypeError("'id' is neither text nor a whole number")
    return str(name)


def _audio(row: Row) -> str:
    """The file of the recording: "audios" is one text or a list of one; "" if there is none."""
    audios = row.get("audios") or []
    files = [audios] if isinstance(audios, str) else audios
    if not isinstance(files, list) or not all(isinstance(one, str) for one in files):
        raise TypeError("'audios' is no text and no list of texts")
    if len(files) > 1:
        raise TypeError(f"'audios' names {len(files)} recordings, a pair is of one")
    return files[0] if files else ""


def _candidate(utterance: str, language: str, text: str, details: Row | None) -> Candidate:
    if details is None:
        return Candidate(utterance, language, text)
    ids = tuple(details["token_ids"])
    return Candidate(utterance, language, text, ids, details["log_probability"], details["method"])


def _text(row: Row, key: str) -> str:
    """A caption: plain, as a message, or as the last of several messages; a message's content may
    be a list of parts, whose texts are read."""
    answer = row[key]
    if isinstance(answer, list):
        if not answer:
            raise TypeError(f"{key!r} is an empty list")
        answer = answer[-1]
    if isinstance(answer, dict):
        answer = answer["value"] if "value" in answer else answer["content"]
    if isinstance(answer, list):
        if not all(isinstance(part, str) or is_text_part(part) for part in answer):
            raise TypeError(f"{key!r} has a part that is no text")
        answer = text_of_content(answer)
    if not isinstance(answer, str):
        raise TypeError(f"{key!r} is no text")
    if not answer.strip():
        raise TypeError(f"{key!r} is empty")
    return answer.encode("utf-8").decode()


def is_text_part(part: object) -> bool:
    """Whether a part of a message's content is {"type": "text", "text": …}."""
    return isinstance(part, dict) and isinstance(part.get("text"), str)
