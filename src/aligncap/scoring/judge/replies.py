"""Every reply, kept in one SQLite file as soon as it is there.

Each reply is a transaction of its own: a process killed at any moment has lost no reply that had
arrived. The journal is SQLite's ordinary one rather than WAL, which does not work on network
drives; the file may be used by several processes at once, which then share their replies.
"""

from collections.abc import Mapping
from pathlib import Path

from aligncap.errors import DataError
from aligncap.scoring.judge.chat import Reply
from aligncap.storage import Database, canonical_json, hash_of

_APPLICATION = 0x616C6A64
"""Marks the file as ours, in SQLite's header ("aljd")."""

_SCHEMA = (
    "CREATE TABLE replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, settings TEXT NOT NULL,"
    " prompt TEXT NOT NULL, reply TEXT NOT NULL, finish TEXT NOT NULL, served TEXT NOT NULL,"
    " prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,"
    " retries INTEGER NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    f"PRAGMA application_id = {_APPLICATION}",
)


def reply_key(prompt: str, *, model: str, settings: Mapping[str, object]) -> str:
    """SHA-256 of everything a reply depends on, in hexadecimal."""
    return hash_of(_canonical([prompt, model, dict(settings)]))


def settings_hash(settings: Mapping[str, object]) -> str:
    """Eight digits that change with any setting."""
    return hash_of(_canonical(dict(settings)))[:8]


class ReplyCache:
    """Replies of one model by prompt; other models and settings may share the file.

    Raises DataError if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: Path, *, model: str, settings: Mapping[str, object]) -> None:
        self.path = path
        self._model, self._settings = model, settings
        self._database = Database(
            path,
            kind="judge cache",
            cure="name another one, or delete it and pay for its replies again",
        )
        try:
            self._database.create(_SCHEMA, {})
            if self._database.row("PRAGMA application_id") != (_APPLICATION,):
                raise DataError(f"{path}: is another program's database; name another judge cache")
        except DataError:
            self.close()
            raise

    def get(self, prompt: str) -> Reply | None:
        """The reply to a prompt, or None if it never came."""
        row = self._database.row(
            "SELECT reply, finish, served, prompt_tokens, completion_tokens FROM replies"
            " WHERE key = ?",
            (self._key(prompt),),
        )
        if not row:
            return None
        text, finish, served, prompt_tokens, completion_tokens = row
        return Reply(
            text=text,
            finish=finish,
            served=served,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )

    def put(self, prompt: str, reply: Reply) -> None:
        """Keep a reply; on disk when this returns. The first reply to a prompt stays."""
        asked = (self._key(prompt), self._model, _canonical(dict(self._settings)), prompt)
        said = (reply.text, reply.finish, reply.served)
        took = (reply.prompt_tokens, reply.completion_tokens, reply.retries)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO replies (key, model, settings, prompt, reply, finish,"
                " served, prompt_tokens, completion_tokens, retries)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*asked, *said, *took),
            )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _key(self, prompt: str) -> str:
        return reply_key(prompt, model=self._model, settings=self._settings)


def _canonical(value: object) -> str:
    # In ASCII, so that no text is too odd to be hashed.
    return canonical_json(value, ascii_only=True)
