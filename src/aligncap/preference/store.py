"""The preference store: one SQLite file of candidates, judgements, annotations and pairs.

Each change is one transaction, and unique keys let nothing count twice: a run that is killed at
any moment, or repeated, leaves a store that opens and is whole. Several processes may write.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from aligncap.errors import DataError
from aligncap.preference import schema
from aligncap.preference.annotations import Annotations
from aligncap.preference.pair_table import PairTable
from aligncap.preference.values import Candidate, Clip, Finding, Judge, Judgement, Provenance
from aligncap.storage import Database

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
            path, kind="preference store", cure="take a copy from a backup", journal="wal"
        )
        self.annotations = Annotations(self._database)
        self.pairs = PairTable(self._database)
        try:
            self._database.create(schema.SCHEMA, {"preference_store": schema.VERSION})
            self._check_version()
        except DataError:
            self._database.close()
            raise

    def _check_version(self) -> None:
        version = self._database.meta().get("preference_store")
        if version != schema.VERSION:
            raise DataError(
                f"{self.path}: is a store of version {version}, this aligncap reads "
                f"{schema.VERSION}; use the aligncap that wrote it, or begin another store"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add_findings(self, found: Sequence[tuple[Finding, Provenance]]) -> None:
        """Keep what was found of a clip, and by whom; one transaction.

        DataError where the clip's id belongs to another file.
        """
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?)",
                [schema.row_of_source(provenance) for _, provenance in found],
            )
            for finding, provenance in found:
                self._check_file(finding.clip)
                candidates, findings = schema.rows_of_finding(finding, provenance.key)
                connection.execute(schema.PUT_CLIP, schema.row_of_clip(finding.clip))
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
            schema.source_of_row(row)
            for row in self._database.rows("SELECT * FROM sources ORDER BY rowid")
        ]

    def clips(self) -> Iterator[Clip]:
        """Every clip, by its id."""
        for row in self._database.rows("SELECT * FROM clips ORDER BY utterance"):
            yield schema.clip_of_row(row)

    def clip(self, utterance: str) -> Clip | None:
        """The clip of that id, or None."""
        row = self._database.row("SELECT * FROM clips WHERE utterance = ?", (utterance,))
        return schema.clip_of_row(row) if row else None

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
            one = schema.candidate_of_row(row)
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
        rows = [schema.row_of_judgement(one) for one in judgements]
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
        return {row[0]: schema.judgement_of_row(row) for row in rows}

    def __len__(self) -> int:
        """Candidates, each once."""
        return int(self._database.row("SELECT count(*) FROM candidates")[0])
