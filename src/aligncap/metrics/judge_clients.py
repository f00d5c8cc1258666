"""A judging model behind an OpenAI-compatible chat-completions server.

A language model on this machine as judge: any causal LM of transformers, decoded greedily.

From settings to a judge that can be asked.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

from aligncap.endpoints import CHAT, Endpoint, NoReplyError
from aligncap.errors import JudgeError, MissingModelError
from aligncap.metrics.judge import (
    ChatModel,
    JudgeClient,
    JudgeSettings,
    Progress,
    Reply,
    ReplyCache,
)
from aligncap.storage import fingerprint_of_folder


class EndpointModel:
    """The model that `settings` names, on the server at its URL."""

    def __init__(self, settings: JudgeSettings, *, stop: Event | None = None) -> None:
        self.name = settings.model
        self.settings = _request_fields(settings)
        self._endpoint = Endpoint(
            settings,
            CHAT,
            _reply_in,
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
        reply, retries = self._endpoint.ask(
            model=self.name,
            messages=[{"role": "user", "content": prompt}],
            extra_body=self.settings,
        )
        return replace(reply, retries=retries)


def _request_fields(settings: JudgeSettings) -> dict[str, object]:
    own = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    fields = {**own, **settings.request}
    return {key: value for key, value in fields.items() if value is not None}


def _reply_in(table: Any) -> Reply:
    choice = table["choices"][0]
    text = choice["message"]["content"]
    usage = table.get("usage") or {}
    if not isinstance(text, str | None):
        raise TypeError
    return Reply(
        text=text or "",
        finish=str(choice.get("finish_reason") or ""),
        served=str(table.get("model") or ""),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


class LocalModel:
    """A causal LM and its tokenizer; the chat template is used where the tokenizer has one."""

    def __init__(self, causal_lm: Any, tokenizer: Any, *, name: str, max_tokens: int) -> None:
        self.name = name
        self.settings: Mapping[str, object] = {"decoding": "greedy", "max_tokens": max_tokens}
        self._causal_lm, self._tokenizer = causal_lm, tokenizer
        self._max_tokens = max_tokens
        self._lock = Lock()

    def ask(self, prompt: str) -> Reply:
        """The most probable reply, token by token."""
        inputs = self._tokenizer(
            self._dialogue(prompt),
            return_tensors="pt",
            return_token_type_ids=False,
            add_special_tokens=not self._tokenizer.chat_template,  # the template writes its own
        ).to(self._causal_lm.device)
        length = int(inputs["input_ids"].shape[1])
        self._check_room(length)
        with self._lock:
            ids = self._causal_lm.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self._max_tokens,
                pad_token_id=0,  # never read: there is one prompt at a time
            )[0, length:].tolist()
        return Reply(
            text=self._tokenizer.decode(ids, skip_special_tokens=True),
            finish="length" if len(ids) == self._max_tokens else "stop",
            prompt_tokens=length,
            completion_tokens=len(ids),
        )

    def _dialogue(self, prompt: str) -> str:
        if not self._tokenizer.chat_template:
            return prompt + "\n"
        turns = [{"role": "user", "content": prompt}]
        text = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        return str(text)

    def _check_room(self, length: int) -> None:
        longest = getattr(self._causal_lm.config, "max_position_embeddings", None)
        if longest is not None and length + self._max_tokens > longest:
            raise NoReplyError(
                f"prompt and reply may take {length} + {self._max_tokens} tokens, "
                f"{self.name} has room for {longest}"
            )


def open_local(name: str, *, max_tokens: int) -> LocalModel:
    """The model of a folder or of the local Hugging Face cache, signed with a hash of its files.

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
    signed = f"{Path(name).name}@{_hash_of(Path(folder_of(name)))[:8]}"
    return LocalModel(causal_lm, load_tokenizer(name), name=signed, max_tokens=max_tokens)


def _hash_of(folder: Path) -> str:
    """SHA-256 over everything in a model's folder that its replies may depend on."""
    patterns = ("*.json", "*.jinja", "*.model", "*.safetensors")
    files = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
    return fingerprint_of_folder(folder, files)


def open_judge(settings: JudgeSettings, *, progress: Progress | None = None) -> JudgeClient:
    """The judge that the settings describe; nothing is sent before it is asked.

    Raises DataError where the cache cannot be used, MissingModelError where a model of this
    machine, or what runs it, is not here, JudgeError where what asks a server is not.
    """
    stop = Event()
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
