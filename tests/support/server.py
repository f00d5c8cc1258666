"""A server on loopback that speaks the OpenAI protocol and behaves as a test says."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

SERVED = "small-judge-2026-01-31"


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    number: int
    """Counted from 0, over all prompts."""
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        (message,) = self.body["messages"]
        return message["content"]


@dataclass(frozen=True)
class Answer:
    """What goes out; `cut` closes the connection after so many bytes of the body."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    after_s: float = 0.0


def saying(text: str, **more: Any) -> Answer:
    """A completion with this text."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 30, "completion_tokens": 12}
    table = {"model": SERVED, "choices": choices, "usage": usage}
    return Answer(json.dumps(table).encode(), **more)


def failing(status: int, message: str = "overloaded", **headers: str) -> Answer:
    """An error as such servers write it; the client waits a millisecond before it asks again."""
    table = {"error": {"message": message, "type": "server_error"}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("Retry-After-Ms", "1")
    return Answer(json.dumps(table).encode(), status=status, headers=named)


def completing(folder: Path, *, name: str, gives_ids: bool = True) -> Callable[[Asked], Answer]:
    """Completions of the model of a folder by plain transformers, nothing of ours."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    lock = Lock()  # torch has one seed

    def complete(asked: Asked) -> Answer:
        if asked.path != "/v1/completions" or asked.body["model"] != name:
            return failing(404, "no such model")
        with lock, torch.inference_mode():
            choices = [choice(ids, asked.body) for ids in generate(asked.body)]
        return Answer(json.dumps({"choices": choices}).encode())

    def generate(body: dict[str, Any]) -> list[list[int]]:
        how: dict[str, Any] = {"do_sample": False}
        if body["temperature"] > 0.0:
            torch.manual_seed(body.get("seed", 0))
            how = {"do_sample": True, "temperature": body["temperature"]}
            how["top_k"] = body.get("top_k", 0)
        how |= {"max_new_tokens": body["max_tokens"], "min_new_tokens": body["min_tokens"]}
        ids = torch.tensor([body["prompt"]] * body["n"])
        return model.generate(ids, attention_mask=torch.ones_like(ids), **how).tolist()

    def choice(ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        start, ends = len(body["prompt"]), set(model.generation_config.eos_token_id)
        length = next((n for n, i in enumerate(ids[start:], 1) if i in ends), len(ids) - start)
        ids = ids[: start + length]
        log_p = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        said = [float(log_p[at - 1, ids[at]]) for at in range(start, len(ids))]
        text = [i for i in ids[start:] if i != tokenizer.eos_token_id]
        return {
            "text": tokenizer.decode(text, skip_special_tokens=True),
            "finish_reason": "stop" if ids[-1] in ends else "length",
            "logprobs": {"token_logprobs": said},
        } | ({"token_ids": ids[start:]} if gives_ids else {})

    return complete


class Server:
    """Its URL, and every request that came."""

    def __init__(self, behave: Callable[[Asked], Answer]) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self._lock = Lock()
        self._under_way = self.most_at_once = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        return [one.prompt for one in self.asked]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            asked = Asked(len(self.asked), handler.path, dict(handler.headers), body)
            self.asked.append(asked)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        answer = self.behave(asked)
        time.sleep(answer.after_s)
        with self._lock:
            self._under_way -= 1
        try:
            self._send(handler, answer)
        except ConnectionError:  # the client was killed, or would not wait
            handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body[: answer.cut])
        handler.wfile.flush()
        if answer.cut == 0:  # not even an end: a reset, as when a server dies
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@contextmanager
def serving(behave: Callable[[Asked], Answer]) -> Iterator[Server]:
    server = Server(behave)
    thread = Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
