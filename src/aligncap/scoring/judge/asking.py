"""The judge: asks a model many questions at once, keeps every reply, and says what it took."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Generic, Self, TypeVar

from aligncap.endpoints import StoppedError
from aligncap.errors import InterruptedRunError, JudgeError
from aligncap.scoring.judge.chat import ChatModel, NoReplyError, Reply
from aligncap.scoring.judge.reading import MalformedReplyError
from aligncap.scoring.judge.replies import ReplyCache
from aligncap.scoring.judge.report import Failure, JudgeReport

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


class Judge:
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

    def ask(self, questions: Sequence[Question[T]]) -> list[T | Failure]:
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
        found: list[T | Failure] = []
        for question in questions:
            answer = answers[question.prompt]
            failure = Failure(question.id, answer.reason)
            found.append(failure if answer.value is None else answer.value)
        failures = [one for one in found if isinstance(one, Failure)]
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
