"""The tables of a preference store, and the rows that its values become.

Where a store keeps pairs: those of one clip and one way of pairing are replaced together.

What people chose between two candidates, and where a store keeps it.

The preference store: one SQLite file of candidates, judgements, annotations and pairs.

Each change is one transaction, and unique keys let nothing count twice: a run that is killed at
any moment, or repeated, leaves a store that opens and is whole. Several processes may write.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.values import (
    Candidate,
    Clip,
    ClipCandidates,
    Judge,
    Judgement,
    PreferencePair,
    Provenance,
)
from aligncap.prosody.facts import read_facts, write_facts
from aligncap.storage import Database, canonical_json

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
    # What one person says of one pair counts once, from however many windows it comes.
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
"""What is newly known of a clip goes before what was known; what is not known changes nothing."""

Values = tuple[Any, ...]


def row_of_clip(clip: Clip) -> Values:
    """A row of `clips`."""
    captions = {name: list(texts) for name, texts in clip.references.items()}
    facts = write_facts(clip.facts) if clip.facts else None
    said = canonical_json(captions)
    return (clip.utterance, clip.file, facts, clip.emotion, clip.gender, said)


def clip_of_row(row: Values) -> Clip:
    """The clip that `row_of_clip` wrote."""
    utterance, file, facts, emotion, gender, said = row
    captions = {name: tuple(texts) for name, texts in json.loads(said).items()}
    heard = read_facts(facts) if facts else None
    return Clip(utterance, file, heard, emotion, gender, MappingProxyType(captions))


def row_of_source(provenance: Provenance) -> Values:
    """A row of `sources`."""
    options = canonical_json(dict(provenance.options))
    named = (provenance.model, provenance.fingerprint, provenance.method, options)
    return (provenance.key, *named, provenance.seed, provenance.version)


def source_of_row(row: Values) -> Provenance:
    """The provenance that `row_of_source` wrote."""
    _, model, fingerprint, method, options, seed, version = row
    return Provenance(
        model=model,
        fingerprint=fingerprint,
        method=method,
        options=MappingProxyType(json.loads(options)),
        seed=seed,
        version=version,
    )


def rows_of_finding(finding: ClipCandidates, source: str) -> tuple[list[Values], list[Values]]:
    """Rows of `candidates` and of `findings`."""
    candidates, findings = [], []
    for place, one in enumerate(finding.candidates):
        candidates.append((one.key, one.utterance, one.language, one.text))
        ids = json.dumps(one.token_ids)
        findings.append((one.key, source, place, ids, one.log_probability))
    return candidates, findings


def candidate_of_row(row: Values) -> Candidate:
    """A candidate: utterance, language, text, token_ids, log_probability, method."""
    utterance, language, text, ids, log_probability, method = row
    return Candidate(utterance, language, text, tuple(json.loads(ids)), log_probability, method)


def row_of_judgement(judgement: Judgement) -> Values:
    """A row of `judgements`."""
    parts = canonical_json(dict(judgement.parts), ascii_only=True)
    return (judgement.candidate, judgement.judge, judgement.score, parts, judgement.reason)


def judgement_of_row(row: Values) -> Judgement:
    """The judgement that `row_of_judgement` wrote."""
    candidate, judge, score, parts, reason = row
    return Judgement(candidate, judge, score, MappingProxyType(json.loads(parts)), reason)


_CANDIDATE = (
    "SELECT utterance, language, text, token_ids, log_probability, method FROM candidates"
    " JOIN findings USING (candidate) JOIN sources USING (source)"
    " WHERE candidate = ? ORDER BY method = 'gold', sources.rowid LIMIT 1"
)


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
        return candidate_of_row(row)


CHOICES = ("first", "second", "tie", "skip")
"""What a person can say of two candidates."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a person chose between two candidates."""

    id: str
    """Made by whoever asked the person, so that what is sent twice counts once."""
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
        """The candidates' keys in an order that does not depend on who was shown them."""
        return (min(self.first, self.second), max(self.first, self.second))

    @property
    def value(self) -> int | None:
        """+1 where the first of `pair` is better, -1 the second, 0 a tie, None where skipped."""
        if self.choice in ("tie", "skip"):
            return 0 if self.choice == "tie" else None
        return 1 if getattr(self, self.choice) == self.pair[0] else -1


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


Group = tuple[Clip, str, list[Candidate]]
"""A clip, a language, and the candidates of the clip in that language."""

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
            self._check_version()
        except DataError:
            self._database.close()
            raise

    def _check_version(self) -> None:
        version = self._database.meta().get("preference_store")
        if version != VERSION:
            raise DataError(
                f"{self.path}: is a store of version {version}, this aligncap reads "
                f"{VERSION}; use the aligncap that wrote it, or begin another store"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add_findings(self, found: Sequence[tuple[ClipCandidates, Provenance]]) -> None:
        """Keep what was found of a clip, and by whom; one transaction.

        DataError where the clip's id belongs to another file.
        """
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?)",
                [row_of_source(provenance) for _, provenance in found],
            )
            for finding, provenance in found:
                self._check_file(finding.clip)
                candidates, findings = rows_of_finding(finding, provenance.key)
                connection.execute(PUT_CLIP, row_of_clip(finding.clip))
                connection.executemany(
                    "INSERT OR IGNORE INTO candidates VALUES (?, ?, ?, ?)", candidates
                )
                connection.executemany(
                    "INSERT OR IGNORE INTO findings VALUES (?, ?, ?, ?, ?)", findings
                )

    def _check_file(self, clip: Clip) -> None:
        row = self._database.row("SELECT file FROM clips WHERE utterance = ?", (clip.utterance,))
        if row and row[0] and clip.file and row[0] != clip.file:
            raise DataError(
                f"{clip.file}: its id {clip.utterance!r} belongs to {row[0]} in {self.path}; "
                "keep one store a corpus"
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
        return [
            source_of_row(row)
            for row in self._database.rows("SELECT * FROM sources ORDER BY rowid")
        ]

    def clips(self) -> Iterator[Clip]:
        """Every clip, by its id."""
        for row in self._database.rows("SELECT * FROM clips ORDER BY utterance"):
            yield clip_of_row(row)

    def clip(self, utterance: str) -> Clip | None:
        """The clip of that id, or None."""
        row = self._database.row("SELECT * FROM clips WHERE utterance = ?", (utterance,))
        return clip_of_row(row) if row else None

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
            one = candidate_of_row(row)
            once.setdefault(one.key, one)
        return list(once.values())

    def begin_judging(self, judge: Judge) -> None:
        """Make this judge the latest of its name."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO judges (signature, name) VALUES (?, ?)",
                (judge.signature, judge.name),
            )

    def latest_judge(self, name: str) -> str:
        """The signature under which the judge of that name judged last; DataError if it never
        did."""
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
        return [
            name for (name,) in self._database.rows("SELECT DISTINCT name FROM judges ORDER BY 1")
        ]

    def add_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Keep judgements, in one transaction; what is there already stays as it is."""
        rows = [row_of_judgement(one) for one in judgements]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO judgements VALUES (?, ?, ?, ?, ?)", rows)

    def count_judgements(self, signature: str) -> int:
        """How many candidates a judge has judged."""
        query = "SELECT count(*) FROM judgements WHERE judge = ?"
        return int(self._database.row(query, (signature,))[0])

    def judgements(self, utterance: str, language: str, signature: str) -> dict[str, Judgement]:
        """What a judge thinks of the candidates of a clip, by their keys."""
        rows = self._database.rows(
            "SELECT judgements.* FROM judgements JOIN candidates USING (candidate)"
            " WHERE utterance = ? AND language = ? AND judge = ?",
            (utterance, language, signature),
        )
        return {row[0]: judgement_of_row(row) for row in rows}

    def __len__(self) -> int:
        """Candidates, each once."""
        return int(self._database.row("SELECT count(*) FROM candidates")[0])
