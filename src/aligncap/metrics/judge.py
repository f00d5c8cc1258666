"""How a judge is set up; read from the command line at the edge, and handed in.

Prompts for the judge: text files with $names, ours or those of a folder one hands in.

What a judge asks of a language model: a prompt in, a reply out.

Replies read strictly: one JSON object of known keys, types and ranges, or a complaint.

A reply may have thoughts in <think> … </think> before it, a code fence or prose around the object.
What is read then lies between its first and its last brace, and must be one object: with two
objects, or a brace in the prose, nobody can say which is meant, and the reply is refused.

Every reply, kept in one SQLite file as soon as it is there.

Each reply is a transaction of its own: a process killed at any moment has lost no reply that had
arrived. The journal is SQLite's ordinary one rather than WAL, which does not work on network
drives; the file may be used by several processes at once, which then share their replies.

What a judge was asked and what it took, to be shown beside its scores.

The judge: asks a model many questions at once, keeps every reply, and says what it took.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from aligncap.endpoints import CHAT, NoReplyError, ServerSettings, StoppedError
from aligncap.errors import DataError, InterruptedRunError, JudgeError, RecipeError
from aligncap.storage import Database, canonical_json, hash_of

CACHE = Path("judge-replies.sqlite")

OUR_FIELDS = ("model", "messages", "stream")
"""Fields of a request that are not the user's to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings(ServerSettings):
    """Which model judges, and how it is asked."""

    model: str
    """A name the server knows; without `url`, a folder or Hugging Face name on this machine, which
    takes one prompt after the other."""
    temperature: float = 0.0
    max_tokens: int = 1024
    """Of one reply; a reply that is cut there cannot be read."""
    request: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Further fields of each request, such as {"seed": 1}; a field that is None is left out, such
    as {"max_tokens": None, "max_completion_tokens": 4000}."""
    cache: Path = CACHE
    """Every reply is kept here."""
    prompts: Path | None = None
    """A folder of prompt templates to use in place of those built in, file by file."""

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise RecipeError("the judge has no model; name one as its server knows it")
        self.check("the judge's", CHAT)
        if self.url is None and (self.temperature or self.request):
            raise RecipeError("a judge on this machine is greedy: leave temperature and request")
        if ours := [name for name in OUR_FIELDS if name in self.request]:
            raise RecipeError(f"the judge's request sets {ours[0]!r}, which is set for it")
        if not self.temperature >= 0.0:
            raise RecipeError(f"the judge's temperature is {self.temperature}, must be 0 or more")
        if self.max_tokens < 1:
            raise RecipeError(f"the judge's max_tokens is {self.max_tokens}, must be 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered to one prompt, as it came."""

    text: str
    finish: str = ""
    """Why it ended, in the server's word: "stop", "length" …; empty where it does not say."""
    served: str = ""
    """The model that the server says has answered: "some-model-2026-01-31" for "some-model"."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    """Attempts that failed before this one."""


class ChatModel(Protocol):
    """A language model that replies to prompts, from several threads at once."""

    @property
    def name(self) -> str:
        """For signatures; a model on this machine adds a hash of its weights."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Everything beside name and prompt that a reply depends on, as JSON values."""

    def ask(self, prompt: str) -> Reply:
        """The reply to one prompt.

        Raises NoReplyError where this prompt got none, JudgeError where no prompt would.
        """


_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class MalformedReplyError(Exception):
    """A reply that cannot be used; the message is a complaint that the model can act on."""


def read_object(text: str) -> dict[str, Any]:
    """The one JSON object of a reply."""
    text = _THOUGHTS.sub("", text)
    begin, end = re.search(r"[{}]", text), text.rfind("}")
    if begin is None or end < 0:
        raise MalformedReplyError("it holds no whole JSON object")
    try:
        found = json.loads(
            text[begin.start() : end + 1],
            object_pairs_hook=_without_twins,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise MalformedReplyError(f"it is not one JSON object ({reason})") from error
    assert isinstance(found, dict), "what begins with a brace is an object"
    return found


def check_keys(
    table: Mapping[str, object], keys: Collection[str], *, of: str = "the object"
) -> None:
    """Refuse a table that has not exactly these keys."""
    if missing := [key for key in keys if key not in table]:
        raise MalformedReplyError(f"{of} lacks {_quoted(missing)}")
    if unknown := [key for key in table if key not in keys]:
        raise MalformedReplyError(f"{of} has {_quoted(unknown)}, which nobody asked for")


def read_rating(table: Mapping[str, object], key: str, *, low: float, high: float) -> float:
    """A number of a table within its range; text, true and false are no numbers."""
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedReplyError(f"{key!r} must be a number, not {_short(value)}")
    if not low <= value <= high:  # compared as it is: a vast integer fits no float
        raise MalformedReplyError(f"{key!r} is {_short(value)}, must be {low:g} to {high:g}")
    return float(value)


def read_text(table: Mapping[str, object], key: str) -> str:
    """A text of a table that is not empty."""
    value = table[key]
    if not isinstance(value, str) or not value.strip():
        raise MalformedReplyError(f"{key!r} must be text, not {_short(value)}")
    return value.strip()


def read_texts(table: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A list of texts of a table, often empty."""
    value = table[key]
    if not isinstance(value, list) or not all(
        isinstance(one, str) and one.strip() for one in value
    ):
        raise MalformedReplyError(f"{key!r} must be a list of texts, not {_short(value)}")
    return tuple(one.strip() for one in value)


def read_table(table: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object within a table."""
    value = table[key]
    if not isinstance(value, dict):
        raise MalformedReplyError(f"{key!r} must be an object, not {_short(value)}")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise MalformedReplyError("a key is there twice")
    return table


def _no_number(name: str) -> float:
    raise MalformedReplyError(f"{name} is no number")


def _short(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number of very many digits"
    if isinstance(value, float) and not math.isfinite(value):
        return "an infinite number"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _quoted(keys: list[str]) -> str:
    return ", ".join(_short(key) for key in keys[:3])


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
            hint="name another one, or delete it and pay for its replies again",
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


@dataclass(frozen=True, slots=True)
class JudgeFailure:
    """A clip that the judge could not rate, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """The account of a judge's work since it was opened."""

    model: str
    questions: int = 0
    """Different prompts."""
    asked: int = 0
    """Replies that the model gave now."""
    kept: int = 0
    """Replies that were kept from before."""
    retries: int = 0
    """Attempts that were repeated because no reply came."""
    malformed: int = 0
    """Replies that could not be used; each question is asked twice at most."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    served: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many replies each model gave, by the name the server says; empty where it does not."""
    failures: tuple[JudgeFailure, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"judge {self.model}: {_counted(self.questions, 'question')}",
            f"{self.asked} replies asked for, {self.kept} kept from before",
            f"{_counted(self.retries, 'retry', 'retries')}",
        ]
        if self.malformed:
            parts.append(f"{self.malformed} malformed")
        if self.failures:
            parts.append(f"{_counted(len(self.failures), 'clip')} not rated")
        if self.prompt_tokens or self.completion_tokens:
            parts.append(f"{self.prompt_tokens} + {self.completion_tokens} tokens")
        if len(self.served) > 1:
            parts.append(f"answered by different models: {', '.join(sorted(self.served))}")
        return ", ".join(parts)


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Told how many questions are answered, and of how many, after each."""

COMPLAINT = (
    "\n\nYour last reply to this could not be used: {complaint}. "
    "Reply with the JSON object only, exactly as described above."
)
"""Put behind the prompt when it is asked once more."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A prompt about one clip, and how the reply to it is read."""

    id: str
    """Of the clip, for messages."""
    prompt: str
    read: Callable[[str], T]
    """Raises MalformedReplyError for a reply that cannot be used."""


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    """What became of a question, and what it took."""

    value: T | None
    reason: str = ""
    """Why there is no value."""
    replies: tuple[Reply, ...] = ()
    """Those the model gave just now; what was kept from before is not among them."""
    kept: int = 0
    malformed: int = 0
    lost: int = 0
    """Retries after which there still was no reply."""


class JudgeClient:
    """A model that is asked through its cache; use it as a context, or close it.

    `concurrency` prompts are under way at once. A malformed reply is asked for once more, with the
    complaint; the second reply counts. After `2 * concurrency + 1` questions in a row that got no
    reply at all the run ends with a JudgeError.
    """

    def __init__(
        self,
        model: ChatModel,
        cache: ReplyCache,
        *,
        concurrency: int = 1,
        prompts: Path | None = None,
        progress: Progress | None = None,
        stop: Event | None = None,
    ) -> None:
        self.model = model
        self.prompts = prompts
        """A folder of templates to use in place of ours."""
        self._cache, self._concurrency, self._progress = cache, concurrency, progress
        self._stop = stop or Event()
        self._report = JudgeReport(model=model.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the cache."""
        self._cache.close()

    @property
    def report(self) -> JudgeReport:
        """What was asked so far, and what it took."""
        return self._report

    def ask(self, questions: Sequence[Question[T]]) -> list[T | JudgeFailure]:
        """The answer to each question, in order, or why there is none.

        Equal prompts are asked once. Raises JudgeError where the model cannot be asked at all,
        InterruptedRunError after Ctrl-C; every reply that came is kept, and the same questions
        asked again cost only what is missing.
        """
        self._stop.clear()
        once = {question.prompt: question for question in questions}
        answers: dict[str, _Answer[T]] = {}
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                futures = {pool.submit(self._answer, one): one.prompt for one in once.values()}
                self._collect(futures, answers)
            except BaseException as error:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    raise InterruptedRunError(
                        f"stopped after {len(answers)} of {len(once)} questions to the judge; the "
                        "same command goes on from there"
                    ) from error
                raise
        found: list[T | JudgeFailure] = []
        for question in questions:
            answer = answers[question.prompt]
            failure = JudgeFailure(question.id, answer.reason)
            found.append(failure if answer.value is None else answer.value)
        failures = [one for one in found if isinstance(one, JudgeFailure)]
        self._report = replace(self._report, failures=(*self._report.failures, *failures))
        return found

    def _collect(
        self, futures: "dict[Future[_Answer[T]], str]", answers: "dict[str, _Answer[T]]"
    ) -> None:
        unanswered = 0
        for future in as_completed(futures):
            answer = answers[futures[future]] = future.result()
            self._count(answer)
            unanswered = 0 if answer.replies else unanswered + (answer.lost > 0)
            if unanswered > 2 * self._concurrency:
                raise JudgeError(
                    f"judge {self.model.name}: {unanswered} questions in a row got no reply "
                    f"({answer.reason}); see to the server and run the same command again, the "
                    "replies so far are kept"
                )
            if self._progress is not None:
                self._progress(len(answers), len(futures))

    def _answer(self, question: Question[T]) -> _Answer[T]:
        answer: _Answer[T] = _Answer(None)
        prompt = question.prompt
        for _ in range(2):
            try:
                reply, is_new = self._reply(prompt)
            except NoReplyError as error:
                return replace(answer, reason=str(error), lost=error.retries + 1)
            answer = replace(
                answer,
                replies=(*answer.replies, *([reply] if is_new else [])),
                kept=answer.kept + (not is_new),
            )
            try:
                return replace(answer, value=question.read(reply.text), reason="")
            except MalformedReplyError as error:
                cut = " (cut at the longest length allowed)" if reply.finish == "length" else ""
                answer = replace(
                    answer,
                    reason=f"two replies could not be used, the last: {error}{cut}",
                    malformed=answer.malformed + 1,
                )
                prompt = question.prompt + COMPLAINT.format(complaint=error)
        return answer

    def _reply(self, prompt: str) -> tuple[Reply, bool]:
        """A reply, and whether it was asked for just now."""
        prompt = _writable(prompt)
        if kept := self._cache.get(prompt):
            return kept, False
        if self._stop.is_set():
            raise StoppedError
        reply = self.model.ask(prompt)
        reply = replace(
            reply,
            text=_writable(reply.text),
            finish=_writable(reply.finish),
            served=_writable(reply.served),
        )
        self._cache.put(prompt, reply)
        # Another process may have been first; its reply is the one that scores again.
        standing = self._cache.get(prompt) or reply
        return replace(reply, text=standing.text, finish=standing.finish), True

    def _count(self, answer: _Answer[T]) -> None:
        so_far = self._report
        served = Counter(so_far.served)
        served.update(reply.served for reply in answer.replies if reply.served)
        retries = sum(reply.retries for reply in answer.replies) + max(0, answer.lost - 1)
        self._report = replace(
            so_far,
            questions=so_far.questions + 1,
            asked=so_far.asked + len(answer.replies),
            kept=so_far.kept + answer.kept,
            retries=so_far.retries + retries,
            malformed=so_far.malformed + answer.malformed,
            prompt_tokens=so_far.prompt_tokens + sum(one.prompt_tokens for one in answer.replies),
            completion_tokens=so_far.completion_tokens
            + sum(one.completion_tokens for one in answer.replies),
            served=dict(served),
        )


def _writable(text: str) -> str:
    """A text that every encoding can hold: half a surrogate pair, as broken JSON has it, goes."""
    return text.encode("utf-8", "replace").decode()
