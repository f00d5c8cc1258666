"""The preference store: one SQLite file of candidates, judgements, annotations and pairs.

The values come first: clips, candidates, judgements, pairs, annotations, and where each comes from.
Each change of the store is one transaction, and unique keys let nothing count twice: a run that is
killed at any moment, or repeated, leaves a store that opens and is consistent. Several processes
may write.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from aligncap.clues.evidence import ClipKnowledge
from aligncap.data.manifest import read_facts, write_facts
from aligncap.errors import DataError, UnknownNameError
from aligncap.storage import Database, canonical_json, hash_of
from aligncap.values import EMOTIONS, LANGUAGES, Facts

METHODS = ("beam", "diverse", "sample", "claims", "gold", "imported")
"""How a candidate can have been found; the first four are ways to ask a model, "gold" is a caption
of the corpus."""

_CJK = "\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_NEEDLESS_SPACE = re.compile(rf"(?<=[{_CJK}])\s+|\s+(?=[{_CJK}])")
_SPACE = re.compile(r"\s+")


def normal_form(text: str) -> str:
    """A caption without case, extra white space, full-width forms and final punctuation: captions
    with the same normal form are the same.

    Unicode's NFKC_Casefold, then one space between words and none next to Chinese characters.
    """
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", folded)).strip()
    plain = _NEEDLESS_SPACE.sub("", plain)
    while plain and (plain[-1].isspace() or unicodedata.category(plain[-1]).startswith("P")):
        plain = plain[:-1]
    return plain


def digest(*parts: object) -> str:
    """Twenty hexadecimal digits, a hash of these values."""
    return hash_of(canonical_json(parts))[:20]


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance, and what captions of it are judged by."""

    utterance: str
    """Its id in the manifest."""
    file: str
    """The recording, relative to the manifest's folder where it is inside of it; "" if unknown."""
    facts: Facts | None = None
    """What the signal shows."""
    emotion: str | None = None
    """As the corpus labels it, one of `values.EMOTIONS`."""
    gender: str | None = None
    """As the corpus labels it, "female" or "male"."""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Captions that people wrote, by language."""

    def __post_init__(self) -> None:
        if not self.utterance:
            raise DataError("a clip needs the id of its utterance")
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise UnknownNameError("emotion", self.emotion, EMOTIONS)

    @property
    def knowledge(self) -> ClipKnowledge:
        """What claims about the clip are checked against."""
        return ClipKnowledge.of(
            self.facts, emotion=self.emotion, gender=self.gender, captions=self.references
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible caption of an utterance."""

    utterance: str
    language: str
    text: str
    token_ids: tuple[int, ...] = ()
    """Of the model that generated it, the end included; empty where none did."""
    log_probability: float | None = None
    """Sum over the tokens, natural logarithm; None where no model generated it."""
    method: str = "imported"
    """How it was found, one of `METHODS`."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownNameError("caption language", self.language, LANGUAGES)
        if self.method not in METHODS:
            raise UnknownNameError("way to find candidates", self.method, METHODS)
        if not normal_form(self.text):
            raise DataError(f"{self.utterance}: a candidate says nothing ({self.text!r})")
        if self.log_probability is not None and not math.isfinite(self.log_probability):
            raise DataError(f"{self.utterance}: log-probability is {self.log_probability}")

    @property
    def key(self) -> str:
        """The same for all captions of an utterance that have the same `normal_form`."""
        return digest(self.utterance, self.language, normal_form(self.text))


@dataclass(frozen=True, slots=True)
class ClipCandidates:
    """A clip and its candidates by one model, best first, all different."""

    clip: Clip
    language: str
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        for one in self.candidates:
            if (one.utterance, one.language) != (self.clip.utterance, self.language):
                raise DataError(f"{self.clip.utterance}: holds a candidate of {one.utterance}")
        if len({one.key for one in self.candidates}) < len(self.candidates):
            raise DataError(f"{self.clip.utterance}: two candidates say the same")


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's score of a candidate."""

    candidate: str
    """The candidate's key."""
    judge: str
    """The judge's signature."""
    score: float
    """More is better; 1 is the best, 0 worth nothing, below it worse than an empty caption."""
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What the score is made of, by name."""
    reason: str = ""
    """In words, for people."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.score, *self.parts.values()))):
            raise DataError(f"{self.judge}: a score must be a number, not {self.score}")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two candidates of one utterance, of which a judge prefers one."""

    chosen: Candidate
    rejected: Candidate
    margin: float
    """Difference of their scores."""

    def __post_init__(self) -> None:
        chosen, rejected = self.chosen, self.rejected
        if (chosen.utterance, chosen.language) != (rejected.utterance, rejected.language):
            raise DataError(
                f"{chosen.utterance}: is paired with a caption of {rejected.utterance} in "
                f"{rejected.language}; both must be of one utterance and language"
            )
        if chosen.key == rejected.key:
            raise DataError(f"{chosen.utterance}: chosen and rejected are the same caption")
        if not 0 < self.margin < math.inf:
            raise DataError(f"{chosen.utterance}: margin is {self.margin}, must be above 0")

    @property
    def utterance(self) -> str:
        """The utterance that both are captions of."""
        return self.chosen.utterance

    @property
    def language(self) -> str:
        """The language of both captions."""
        return self.chosen.language


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where candidates come from; its `key` changes with anything that could change them."""

    model: str
    """Its name; "corpus" for captions of the corpus."""
    fingerprint: str
    """Hash of the model's files."""
    method: str
    """One of `METHODS`."""
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Decode options and whatever else was set."""
    seed: int = 0
    version: str = ""
    """Of this package."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("way to find candidates", self.method, METHODS)

    @property
    def key(self) -> str:
        """A hash of all of it."""
        named = (self.model, self.fingerprint, self.method, self.seed, self.version)
        return digest(*named, dict(self.options))


CHOICES = ("first", "second", "tie", "skip")
"""A person's choice between two candidates."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a person chose between two candidates."""

    id: str
    """Made by the annotation page, so that what is sent twice counts once."""
    annotator: str
    first: str
    """Key of the candidate that was shown first."""
    second: str
    choice: str
    """One of `CHOICES`."""

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise UnknownNameError("choice", self.choice, CHOICES)
        if not self.id or not self.annotator.strip():
            raise DataError("an annotation needs an id and an annotator")
        if self.first == self.second:
            raise DataError(f"{self.id}: a candidate is compared with itself")

    @property
    def pair(self) -> tuple[str, str]:
        """The candidates' keys in an order that does not depend on which was shown first."""
        return (min(self.first, self.second), max(self.first, self.second))

    @property
    def value(self) -> int | None:
        """+1 where the first of `pair` is better, -1 the second, 0 a tie, None where skipped."""
        if self.choice in ("tie", "skip"):
            return 0 if self.choice == "tie" else None
        return 1 if getattr(self, self.choice) == self.pair[0] else -1


Group = tuple[Clip, str, list[Candidate]]
"""A clip, a language, and the candidates of the clip in that language."""


VERSION = "1"
"""Of the tables; a store of another version is refused."""

SCHEMA = (
    "CREATE TABLE clips (utterance TEXT PRIMARY KEY, file TEXT NOT NULL, facts TEXT,"
    " emotion TEXT, gender TEXT, captions TEXT NOT NULL)",
    "CREATE TABLE sources (source TEXT PRIMARY KEY, model TEXT NOT NULL, fingerprint TEXT NOT NULL,"
    " method TEXT NOT NULL, options TEXT NOT NULL, seed INTEGER NOT NULL, version TEXT NOT NULL)",
    "CREATE TABLE candidates (candidate TEXT PRIMARY KEY, utterance TEXT NOT NULL"
    " REFERENCES clips, language TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE INDEX candidates_of ON candidates (utterance, language)",
    # One caption may be found by several models; it is judged once.
    "CREATE TABLE findings (candidate TEXT NOT NULL REFERENCES candidates, source TEXT NOT NULL"
    " REFERENCES sources, place INTEGER NOT NULL, token_ids TEXT NOT NULL, log_probability REAL,"
    " PRIMARY KEY (candidate, source))",
    "CREATE TABLE judges (number INTEGER PRIMARY KEY, signature TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL)",
    "CREATE TABLE judgements (candidate TEXT NOT NULL REFERENCES candidates, judge TEXT NOT NULL,"
    " score REAL NOT NULL, parts TEXT NOT NULL, reason TEXT NOT NULL,"
    " PRIMARY KEY (candidate, judge))",
    "CREATE TABLE annotations (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " annotator TEXT NOT NULL, low TEXT NOT NULL, high TEXT NOT NULL, first TEXT NOT NULL,"
    " second TEXT NOT NULL, choice TEXT NOT NULL, undone INTEGER NOT NULL DEFAULT 0)",
    # One person's choice of one pair counts once, from however many windows it comes.
    "CREATE UNIQUE INDEX annotated_once ON annotations (annotator, low, high) WHERE NOT undone",
    "CREATE TABLE pairs (number INTEGER PRIMARY KEY, builder TEXT NOT NULL, chosen TEXT NOT NULL"
    " REFERENCES candidates, rejected TEXT NOT NULL REFERENCES candidates, margin REAL NOT NULL,"
    " utterance TEXT NOT NULL, language TEXT NOT NULL, UNIQUE (builder, chosen, rejected))",
    "CREATE TABLE builders (number INTEGER PRIMARY KEY, builder TEXT NOT NULL UNIQUE)",
)

PUT_CLIP = (
    "INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (utterance) DO UPDATE SET"
    " file = coalesce(nullif(excluded.file, ''), file), facts = coalesce(excluded.facts, facts),"
    " emotion = coalesce(excluded.emotion, emotion), gender = coalesce(excluded.gender, gender),"
    " captions = coalesce(nullif(excluded.captions, '{}'), captions)"
)
"""New values of a clip replace those of before; what is not known changes nothing."""

_GROUPS = (
    "SELECT DISTINCT utterance, language FROM candidates JOIN findings USING (candidate)"
    " WHERE source = coalesce(?, source) ORDER BY language, utterance"
)
_FOUND = (
    "SELECT utterance, language, text, token_ids, log_probability, method FROM candidates"
    " JOIN findings USING (candidate) JOIN sources USING (source)"
    " WHERE utterance = ? AND language = ? AND source = coalesce(?, source)"
    # A caption of the corpus that a model gave too is the model's.
    " ORDER BY method = 'gold', sources.rowid, place"
)
_CANDIDATE = (
    "SELECT utterance, language, text, token_ids, log_probability, method FROM candidates"
    " JOIN findings USING (candidate) JOIN sources USING (source)"
    " WHERE candidate = ? ORDER BY method = 'gold', sources.rowid LIMIT 1"
)


def _clip_of(row: Sequence[Any]) -> Clip:
    utterance, file, facts, emotion, gender, captions = row
    by_language = {name: tuple(texts) for name, texts in json.loads(captions).items()}
    measured = read_facts(facts) if facts else None
    return Clip(utterance, file, measured, emotion, gender, MappingProxyType(by_language))


def _candidate_of(row: Sequence[Any]) -> Candidate:
    utterance, language, text, ids, log_probability, method = row
    return Candidate(utterance, language, text, tuple(json.loads(ids)), log_probability, method)


class PairTable:
    """The pairs of a store, by the way in which they were made (a signature)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, builder: str) -> None:
        """Make this the latest way of pairing."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO builders (builder) VALUES (?)", (builder,))

    def latest(self) -> str:
        """How pairs were made last; DataError where there are none."""
        row = self._database.row("SELECT builder FROM builders ORDER BY number DESC LIMIT 1")
        if not row:
            path = self._database.path
            raise DataError(f"{path}: holds no pairs; run: aligncap prefer pairs {path}")
        return str(row[0])

    def put(
        self, utterance: str, language: str, builder: str, pairs: Sequence[PreferencePair]
    ) -> None:
        """The pairs of a clip, in place of those this builder made before; one transaction."""
        rows = [
            (builder, one.chosen.key, one.rejected.key, one.margin, utterance, language)
            for one in pairs
        ]
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM pairs WHERE builder = ? AND utterance = ? AND language = ?",
                (builder, utterance, language),
            )
            connection.executemany(
                "INSERT INTO pairs (builder, chosen, rejected, margin, utterance, language)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )

    def all(self, builder: str) -> Iterator[PreferencePair]:
        """The pairs of a builder, by utterance, the largest margin first."""
        rows = self._database.rows(
            "SELECT chosen, rejected, margin FROM pairs WHERE builder = ?"
            " ORDER BY utterance, language, margin DESC, rejected",
            (builder,),
        )
        for chosen, rejected, margin in rows:
            yield PreferencePair(self._candidate(chosen), self._candidate(rejected), margin)

    def _candidate(self, key: str) -> Candidate:
        row = self._database.row(_CANDIDATE, (key,))
        if not row:
            path = self._database.path
            raise DataError(f"{path}: a pair of a candidate that is not there; pair again")
        return _candidate_of(row)


class Annotations:
    """The annotations of a store; nothing is ever deleted, only marked as taken back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, annotation: Annotation) -> bool:
        """Keep what a person chose; False where it is there already, under this id or because this
        person has judged this pair."""
        low, high = annotation.pair
        values = (annotation.id, annotation.annotator, low, high)
        shown = (annotation.first, annotation.second, annotation.choice)
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT OR IGNORE INTO annotations"
                " (id, annotator, low, high, first, second, choice) VALUES (?, ?, ?, ?, ?, ?, ?)",
                values + shown,
            )
            return cursor.rowcount > 0

    def undo(self, annotation_id: str, annotator: str) -> bool:
        """Take an annotation of this person back; False where there is none of that id to take."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "UPDATE annotations SET undone = 1 WHERE id = ? AND annotator = ? AND NOT undone",
                (annotation_id, annotator),
            )
            return cursor.rowcount > 0

    def all(self) -> list[Annotation]:
        """Everything people have chosen and not taken back, in the order in which they did."""
        rows = self._database.rows(
            "SELECT id, annotator, first, second, choice FROM annotations WHERE NOT undone"
            " ORDER BY number"
        )
        return [Annotation(*row) for row in rows]


def open_store(path: Path) -> "PreferenceStore":
    """A store that is there; DataError where it is not."""
    if not path.is_file():
        raise DataError(f"{path}: no such store; make one with: aligncap prefer candidates")
    return PreferenceStore(path)


class PreferenceStore:
    """Candidates, judgements, annotations and pairs; a new file is made where there is none.

    Raises DataError for a file that is damaged, no store, or written by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(
            path, kind="preference store", hint="take a copy from a backup", journal="wal"
        )
        self.annotations = Annotations(self._database)
        self.pairs = PairTable(self._database)
        try:
            self._database.create(SCHEMA, {"preference_store": VERSION})
            version = self._database.meta().get("preference_store")
            if version != VERSION:
                raise DataError(
                    f"{self.path}: is a store of version {version}, this aligncap reads "
                    f"{VERSION}; use the aligncap that wrote it, or begin another store"
                )
        except DataError:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add_findings(self, found: Sequence[tuple[ClipCandidates, Provenance]]) -> None:
        """Keep candidates of clips, and where they come from; one transaction.

        DataError where the clip's id belongs to another file.
        """
        with self._database.transaction() as connection:
            for finding, source in found:
                clip, key = finding.clip, source.key
                other = self.clip(clip.utterance)
                if other and other.file and clip.file and other.file != clip.file:
                    raise DataError(
                        f"{clip.file}: its id {clip.utterance!r} belongs to {other.file} in "
                        f"{self.path}; keep one store a corpus"
                    )
                facts = write_facts(clip.facts) if clip.facts else None
                captions = {name: list(texts) for name, texts in clip.references.items()}
                known = (clip.emotion, clip.gender, canonical_json(captions))
                connection.execute(PUT_CLIP, (clip.utterance, clip.file, facts, *known))
                options = canonical_json(dict(source.options))
                named = (source.model, source.fingerprint, source.method, options)
                connection.execute(
                    "INSERT OR IGNORE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (key, *named, source.seed, source.version),
                )
                for place, one in enumerate(finding.candidates):
                    connection.execute(
                        "INSERT OR IGNORE INTO candidates VALUES (?, ?, ?, ?)",
                        (one.key, one.utterance, one.language, one.text),
                    )
                    connection.execute(
                        "INSERT OR IGNORE INTO findings VALUES (?, ?, ?, ?, ?)",
                        (one.key, key, place, json.dumps(one.token_ids), one.log_probability),
                    )

    def found(self, provenance: Provenance) -> set[tuple[str, str]]:
        """Utterance and language of every clip that has candidates of this provenance."""
        rows = self._database.rows(
            "SELECT DISTINCT utterance, language FROM candidates JOIN findings USING (candidate)"
            " WHERE source = ?",
            (provenance.key,),
        )
        return {(utterance, language) for utterance, language in rows}

    def sources(self) -> list[Provenance]:
        """Where candidates came from, in the order in which they came."""
        names = ("model", "fingerprint", "method", "options", "seed", "version")
        query = f"SELECT {', '.join(names)} FROM sources ORDER BY rowid"  # noqa: S608  no input
        found = []
        for row in self._database.rows(query):
            values = dict(zip(names, row, strict=True))
            options = MappingProxyType(json.loads(values.pop("options")))
            found.append(Provenance(**values, options=options))
        return found

    def clips(self) -> Iterator[Clip]:
        """Every clip, by its id."""
        for row in self._database.rows("SELECT * FROM clips ORDER BY utterance"):
            yield _clip_of(row)

    def clip(self, utterance: str) -> Clip | None:
        """The clip of that id, or None."""
        row = self._database.row("SELECT * FROM clips WHERE utterance = ?", (utterance,))
        return _clip_of(row) if row else None

    def groups(self, source: Provenance | None = None) -> Iterator[Group]:
        """Each clip with its candidates, language by language; those of one source, or all."""
        key = source.key if source else None
        for utterance, language in self._database.rows(_GROUPS, (key,)):
            clip = self.clip(utterance)
            if clip is not None:
                yield clip, language, self.candidates(utterance, language, source)

    def candidates(
        self, utterance: str, language: str, source: Provenance | None = None
    ) -> list[Candidate]:
        """The candidates of a clip, each once, as it was found first (by `source`, if given)."""
        key = source.key if source else None
        rows = self._database.rows(_FOUND, (utterance, language, key))
        once: dict[str, Candidate] = {}
        for row in rows:
            one = _candidate_of(row)
            once.setdefault(one.key, one)
        return list(once.values())

    def begin_judging(self, name: str, signature: str) -> None:
        """Make the judge of this signature the latest of its name."""
        with self._database.transaction() as connection:
            query = "INSERT OR REPLACE INTO judges (signature, name) VALUES (?, ?)"
            connection.execute(query, (signature, name))

    def latest_judge(self, name: str) -> str:
        """The signature of the judge of that name that judged last; DataError if none has."""
        row = self._database.row(
            "SELECT signature FROM judges WHERE name = ? ORDER BY number DESC LIMIT 1", (name,)
        )
        if not row:
            raise DataError(
                f"{self.path}: no judgement of {name!r}; run: "
                f"aligncap prefer judge {self.path} --judge {name}"
            )
        return str(row[0])

    def judge_names(self) -> list[str]:
        """The judges that have judged, by name."""
        rows = self._database.rows("SELECT DISTINCT name FROM judges ORDER BY 1")
        return [name for (name,) in rows]

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Keep judgements, in one transaction; what is there already stays as it is."""
        with self._database.transaction() as connection:
            for one in judgements:
                parts = canonical_json(dict(one.parts), ascii_only=True)
                connection.execute(
                    "INSERT OR IGNORE INTO judgements VALUES (?, ?, ?, ?, ?)",
                    (one.candidate, one.judge, one.score, parts, one.reason),
                )

    def count_judgements(self, signature: str) -> int:
        """How many candidates a judge has judged."""
        query = "SELECT count(*) FROM judgements WHERE judge = ?"
        return int(self._database.row(query, (signature,))[0])

    def judgements(self, utterance: str, language: str, signature: str) -> dict[str, Judgement]:
        """A judge's judgements of the candidates of a clip, by their keys."""
        rows = self._database.rows(
            "SELECT judgements.* FROM judgements JOIN candidates USING (candidate)"
            " WHERE utterance = ? AND language = ? AND judge = ?",
            (utterance, language, signature),
        )
        return {
            key: Judgement(key, judge, score, MappingProxyType(json.loads(parts)), reason)
            for key, judge, score, parts, reason in rows
        }

    def __len__(self) -> int:
        """Candidates, each once."""
        return int(self._database.row("SELECT count(*) FROM candidates")[0])
