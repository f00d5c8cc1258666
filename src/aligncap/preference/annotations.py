"""What people chose between two candidates, and where a store keeps it."""

from dataclasses import dataclass

from aligncap.errors import DataError, UnknownNameError
from aligncap.storage import Database

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
