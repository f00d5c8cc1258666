"""Where a store keeps pairs: those of one clip and one way of pairing are replaced together."""

from collections.abc import Iterator, Sequence

from aligncap.errors import DataError
from aligncap.preference.schema import candidate_of_row
from aligncap.preference.values import Candidate, PreferencePair
from aligncap.storage import Database

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
