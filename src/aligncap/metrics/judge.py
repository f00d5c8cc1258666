"""The LLM judge: its settings, the chat models it may be, the cache of replies, and asking.

Every reply is committed to one SQLite file as soon as it arrives, so a run that is killed asks
again only for what is missing. The journal is SQLite's ordinary one rather than WAL, which does
not work on network drives; several processes may share the file and its replies.

Prompts and the reading of replies are in `aes`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Protocol, Self, TypeVar

from aligncap.endpoints import CHAT, Endpoint, NoReplyError, ServerSettings, StoppedError
from aligncap.errors import (
    DataError,
    InterruptedRunError,
    JudgeError,
    MissingModelError,
    RecipeError,
)
from aligncap.storage import Database, canonical_json, fingerprint_of_folder, hash_of

T = TypeVar("T")

DEFAULT_CACHE = Path("judge-replies.sqlite")

RESERVED_FIELDS = ("model", "messages", "stream")
"""Fields of a request that are not the user's to set."""

RETRY_PROMPT = (
    "\n\nYour last reply to this could not be used: {complaint}. "
    "Reply with the JSON object only, exactly as described above."
)
"""Appended to the prompt when it is asked a second time."""


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
    cache: Path = DEFAULT_CACHE
    prompts: Path | None = None
    """A folder of prompt templates to use in place of those built in, file by file."""

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise RecipeError("the judge has no model; name one as its server knows it")
        self.check("the judge's", CHAT)
        if self.url is None and (self.temperature or self.request):
            raise RecipeError("a judge on this machine is greedy: leave temperature and request")
        if reserved := [name for name in RESERVED_FIELDS if name in self.request]:
            raise RecipeError(f"the judge's request sets {reserved[0]!r}, which is set for it")
        if not self.temperature >= 0.0:
            raise RecipeError(f"the judge's temperature is {self.temperature}, must be 0 or more")
        if self.max_tokens < 1:
            raise RecipeError(f"the judge's max_tokens is {self.max_tokens}, must be 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's reply to one prompt, unparsed."""

    text: str
    finish: str = ""
    """Why it ended, in the server's word: "stop", "length" …; empty where it does not say."""
    served: str = ""
    """The model named by the server: "some-model-2026-01-31" for "some-model"."""
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
        """Everything besides name and prompt that a reply depends on, as JSON values."""

    def ask(self, prompt: str) -> Reply:
        """The reply to one prompt.

        Raises NoReplyError where this prompt got none, JudgeError where no prompt would.
        """


class EndpointModel:
    """The model that `settings` names, behind an OpenAI-compatible chat-completions server."""

    def __init__(self, settings: JudgeSettings, *, stop: threading.Event | None = None) -> None:
        own = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
        fields: dict[str, object] = {**own, **settings.request}
        self.name = settings.model
        self.settings = {key: value for key, value in fields.items() if value is not None}
        self._endpoint = Endpoint(
            settings,
            CHAT,
            read_completion,
            what="chat completion",
            refused=JudgeError,
            hints={
                401: "set ALIGNCAP_JUDGE_KEY to a key that the server accepts",
                403: "set ALIGNCAP_JUDGE_KEY to a key that may use this model",
                404: "give the base URL up to and with /v1, and a model that the server lists",
                0: "correct the model or the judge's settings by what it says",
            },
            stop=stop,
        )

    def ask(self, prompt: str) -> Reply:
        """The model's reply, after as many attempts as are allowed."""
        messages = [{"role": "user", "content": prompt}]
        reply, retries = self._endpoint.ask(
            model=self.name, messages=messages, extra_body=self.settings
        )
        return replace(reply, retries=retries)


def read_completion(table: Any) -> Reply:
    """The reply in a chat completion's JSON; LookupError or TypeError where it is none."""
    choice = table["choices"][0]
    content = choice["message"]["content"]
    usage = table.get("usage") or {}
    if not isinstance(content, str | list | None):
        raise TypeError
    return Reply(
        text=text_of_content(content or ""),
        finish=str(choice.get("finish_reason") or ""),
        served=str(table.get("model") or ""),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def text_of_content(content: str | Sequence[Any]) -> str:
    """The text of a message, which may be a list of parts; its thoughts and pictures are none."""
    if isinstance(content, str):
        return content
    texts = [part if isinstance(part, str) else part.get("text") for part in content]
    return "".join(text for text in texts if isinstance(text, str))


class LocalModel:
    """A causal LM of transformers and its tokenizer, decoded greedily.

    The tokenizer's chat template is used where it has one.
    """

    def __init__(self, causal_lm: Any, tokenizer: Any, *, name: str, max_tokens: int) -> None:
        self.name = name
        self.settings: Mapping[str, object] = {"decoding": "greedy", "max_tokens": max_tokens}
        self._causal_lm, self._tokenizer = causal_lm, tokenizer
        self._max_tokens = max_tokens
        self._lock = threading.Lock()

    def ask(self, prompt: str) -> Reply:
        """The most probable reply, token by token."""
        tokenizer, text = self._tokenizer, prompt + "\n"
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(
            text,
            return_tensors="pt",
            return_token_type_ids=False,
            add_special_tokens=not tokenizer.chat_template,  # the template writes its own
        ).to(self._causal_lm.device)
        length = int(inputs["input_ids"].shape[1])
        longest = getattr(self._causal_lm.config, "max_position_embeddings", None)
        if longest is not None and length + self._max_tokens > longest:
            raise NoReplyError(
                f"prompt and reply may take {length} + {self._max_tokens} tokens, "
                f"{self.name} has room for {longest}"
            )
        with self._lock:
            ids = self._causal_lm.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self._max_tokens,
                pad_token_id=0,  # never read: there is one prompt at a time
            )[0, length:].tolist()
        return Reply(
            text=tokenizer.decode(ids, skip_special_tokens=True),
            finish="length" if len(ids) == self._max_tokens else "stop",
            prompt_tokens=length,
            completion_tokens=len(ids),
        )


def open_local(name: str, *, max_tokens: int) -> LocalModel:
    """The model of a folder or of the local Hugging Face cache, named with a hash of its files.

    MissingModelError says what to fetch, or which extra brings the libraries.
    """
    from aligncap.training.pretrained import folder_of, load_causal_lm, load_tokenizer

    try:
        causal_lm = load_causal_lm(name).eval()
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"a judge on this machine needs {error.name}: pip install 'aligncap[train]', "
            "or give the URL of a server"
        ) from error
    folder = Path(folder_of(name))
    patterns = ("*.json", "*.jinja", "*.model", "*.safetensors")
    files = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
    signed = f"{Path(name).name}@{fingerprint_of_folder(folder, files)[:8]}"
    return LocalModel(causal_lm, load_tokenizer(name), name=signed, max_tokens=max_tokens)


_APPLICATION = 0x616C6A64
"""Marks the file as ours, in SQLite's header ("aljd")."""

_SCHEMA = (
    "CREATE TABLE replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, settings TEXT NOT NULL,"
    " prompt TEXT NOT NULL, reply TEXT NOT NULL, finish TEXT NOT NULL, served TEXT NOT NULL,"
    " prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,"
    " retries INTEGER NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    f"PRAGMA application_id = {_APPLICATION}",
)


def settings_hash(settings: Mapping[str, object]) -> str:
    """Eight digits that change with any setting."""
    return hash_of(canonical_json(dict(settings), ascii_only=True))[:8]


class ReplyCache:
    """Replies of one model by prompt; other models and settings may share the file.

    Raises DataError if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, path: Path, *, model: str, settings: Mapping[str, object]) -> None:
        self._model, self._settings = model, dict(settings)
        hint = "name another one, or delete it and pay for its replies again"
        self._database = Database(path, kind="judge cache", hint=hint)
        try:
            self._database.create(_SCHEMA, {})
            if self._database.row("PRAGMA application_id") != (_APPLICATION,):
                raise DataError(f"{path}: is another program's database; name another judge cache")
        except DataError:
            self.close()
            raise

    def get(self, prompt: str) -> Reply | None:
        """The reply to a prompt, or None if it never came."""
        query = (
            "SELECT reply, finish, served, prompt_tokens, completion_tokens FROM replies"
            " WHERE key = ?"
        )
        row = self._database.row(query, (self._key(prompt),))
        names = ("text", "finish", "served", "prompt_tokens", "completion_tokens")
        return Reply(**dict(zip(names, row, strict=True))) if row else None

    def put(self, prompt: str, reply: Reply) -> None:
        """Store a reply; on disk when this returns. The first reply to a prompt stays."""
        settings = canonical_json(self._settings, ascii_only=True)
        asked = (self._key(prompt), self._model, settings, prompt)
        replied = (reply.text, reply.finish, reply.served)
        counts = (reply.prompt_tokens, reply.completion_tokens, reply.retries)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO replies (key, model, settings, prompt, reply, finish,"
                " served, prompt_tokens, completion_tokens, retries)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*asked, *replied, *counts),
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _key(self, prompt: str) -> str:
        """SHA-256 of everything a reply depends on, in hexadecimal."""
        return hash_of(canonical_json([prompt, self._model, self._settings], ascii_only=True))


@dataclass(frozen=True, slots=True)
class JudgeFailure:
    """A clip that the judge could not rate, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """Counts of a judge's work since it was opened; reports of one model add up."""

    model: str
    questions: int = 0
    """Different prompts."""
    asked: int = 0
    """Replies that the model gave now."""
    cached: int = 0
    """Replies from the cache."""
    retries: int = 0
    """Attempts that were repeated because no reply came."""
    malformed: int = 0
    """Replies that could not be used; each question is asked twice at most."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    served: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Replies by the model that the server names; empty where it names none."""
    failures: tuple[JudgeFailure, ...] = ()

    def __add__(self, other: "JudgeReport") -> "JudgeReport":
        counts = ("questions", "asked", "cached", "retries", "malformed", "prompt_tokens")
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in (*counts, "completion_tokens")
        }
        return JudgeReport(
            model=self.model,
            served=dict(Counter(self.served) + Counter(other.served)),
            failures=self.failures + other.failures,
            **sums,
        )

    def __str__(self) -> str:
        def counted(number: int, one: str, many: str) -> str:
            return f"{number} {one if number == 1 else many}"

        parts = [
            f"judge {self.model}: {counted(self.questions, 'question', 'questions')}",
            f"{self.asked} replies asked for, {self.cached} kept from before",
            counted(self.retries, "retry", "retries"),
        ]
        if self.malformed:
            parts.append(f"{self.malformed} malformed")
        if self.failures:
            parts.append(f"{counted(len(self.failures), 'clip', 'clips')} not rated")
        if self.prompt_tokens or self.completion_tokens:
            parts.append(f"{self.prompt_tokens} + {self.completion_tokens} tokens")
        if len(self.served) > 1:
            parts.append(f"answered by different models: {', '.join(sorted(self.served))}")
        return ", ".join(parts)


class MalformedReplyError(Exception):
    """A reply that cannot be used; the message is a complaint that the model can act on."""


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
    value: T | None
    """None where there is none, for the `reason`."""
    report: JudgeReport
    reason: str = ""
    got_no_reply: bool = False


class JudgeClient:
    """A model that is asked through its cache; use it as a context, or close it.

    `concurrency` prompts are under way at once. A malformed reply is asked for once more, with the
    complaint; the second reply counts. After `2 * concurrency + 1` questions in a row that got no
    reply at all the run ends with a JudgeError. `progress` is called with the number of questions
    answered, and of all, after each.
    """

    def __init__(
        self,
        model: ChatModel,
        cache: ReplyCache,
        *,
        concurrency: int = 1,
        prompts: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.model = model
        self.prompts = prompts
        """A folder of templates to use in place of the built-in ones."""
        self.report = JudgeReport(model=model.name)
        """What was asked so far."""
        self._cache, self._concurrency, self._progress = cache, concurrency, progress
        self._stop = stop or threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def ask(self, questions: Sequence[Question[T]]) -> list[T | JudgeFailure]:
        """The answer to each question, in order, or why there is none.

        Equal prompts are asked once. Raises JudgeError where the model cannot be asked at all,
        InterruptedRunError after Ctrl-C; every reply that came is cached, and the same questions
        asked again cost only what is missing.
        """
        self._stop.clear()
        unique = {question.prompt: question for question in questions}
        answers: dict[str, _Answer[T]] = {}
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                futures = {pool.submit(self._answer, one): one.prompt for one in unique.values()}
                self._collect(futures, answers)
            except BaseException as error:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    raise InterruptedRunError(
                        f"stopped after {len(answers)} of {len(unique)} questions to the judge; "
                        "the same command goes on from there"
                    ) from error
                raise
        found: list[T | JudgeFailure] = []
        for question in questions:
            answer = answers[question.prompt]
            failure = JudgeFailure(question.id, answer.reason)
            found.append(failure if answer.value is None else answer.value)
        failures = tuple(one for one in found if isinstance(one, JudgeFailure))
        self.report += JudgeReport(model=self.model.name, failures=failures)
        return found

    def _collect(
        self, futures: "dict[Future[_Answer[T]], str]", answers: "dict[str, _Answer[T]]"
    ) -> None:
        unanswered = 0
        for future in as_completed(futures):
            answer = answers[futures[future]] = future.result()
            self.report += answer.report
            unanswered = 0 if answer.report.asked else unanswered + answer.got_no_reply
            if unanswered > 2 * self._concurrency:
                raise JudgeError(
                    f"judge {self.model.name}: {unanswered} questions in a row got no reply "
                    f"({answer.reason}); see to the server and run the same command again, the "
                    "replies so far are kept"
                )
            if self._progress is not None:
                self._progress(len(answers), len(futures))

    def _answer(self, question: Question[T]) -> _Answer[T]:
        report = JudgeReport(model=self.model.name, questions=1)
        prompt, reason = question.prompt, ""
        for _ in range(2):
            try:
                reply, took = self._reply(prompt)
            except NoReplyError as error:
                report = replace(report, retries=report.retries + error.retries)
                return _Answer(None, report, str(error), got_no_reply=True)
            report += took
            try:
                return _Answer(question.read(reply.text), report)
            except MalformedReplyError as error:
                cut = " (cut at the longest length allowed)" if reply.finish == "length" else ""
                reason = f"two replies could not be used, the last: {error}{cut}"
                report = replace(report, malformed=report.malformed + 1)
                prompt = question.prompt + RETRY_PROMPT.format(complaint=error)
        return _Answer(None, report, reason)

    def _reply(self, prompt: str) -> tuple[Reply, JudgeReport]:
        """A reply, cached or new, and what it took."""
        name, prompt = self.model.name, _encodable(prompt)
        if cached := self._cache.get(prompt):
            return cached, JudgeReport(model=name, cached=1)
        if self._stop.is_set():
            raise StoppedError
        reply = self.model.ask(prompt)
        reply = replace(
            reply,
            text=_encodable(reply.text),
            finish=_encodable(reply.finish),
            served=_encodable(reply.served),
        )
        self._cache.put(prompt, reply)
        took = JudgeReport(
            model=name,
            asked=1,
            retries=reply.retries,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            served={reply.served: 1} if reply.served else {},
        )
        # Another process may have been first; its reply is the one that scores again.
        return self._cache.get(prompt) or reply, took


def _encodable(text: str) -> str:
    """The text with half surrogate pairs, as broken JSON has them, replaced."""
    return text.encode("utf-8", "replace").decode()


def open_judge_client(
    settings: JudgeSettings, *, progress: Callable[[int, int], None] | None = None
) -> JudgeClient:
    """The judge that the settings describe; nothing is sent before it is asked.

    Raises DataError where the cache cannot be used, MissingModelError where a model of this
    machine, or what runs it, is not here, JudgeError where what asks a server is not.
    """
    stop = threading.Event()
    model: ChatModel
    if settings.url is None:
        model = open_local(settings.model, max_tokens=settings.max_tokens)
    else:
        model = EndpointModel(settings, stop=stop)
    return JudgeClient(
        model,
        ReplyCache(settings.cache, model=model.name, settings=model.settings),
        concurrency=1 if settings.url is None else settings.concurrency,
        prompts=settings.prompts,
        progress=progress,
        stop=stop,
    )
