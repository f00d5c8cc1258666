"""A completions server on loopback: plain transformers over a merged folder, nothing of ours."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Server:
    """Its URL, and every request that came."""

    def __init__(self, folder: Path, *, name: str, gives_ids: bool = True) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.name, self.gives_ids = name, gives_ids
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                server.keys.append(self.headers["Authorization"])
                fine = self.path == "/v1/completions" and body["model"] == server.name
                table = server.complete(body) if fine else {"error": {"message": "no such model"}}
                answer = json.dumps(table).encode()
                self.send_response(200 if fine else 404)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self.tokenizer(prompt, add_special_tokens=False).input_ids
        count, temperature = body.get("n", 1), body.get("temperature", 1.0)
        how: dict[str, Any] = {"do_sample": False}
        if temperature > 0.0:
            torch.manual_seed(body.get("seed", 0))
            how = {"do_sample": True, "temperature": temperature, "top_k": body.get("top_k", 0)}
        ids = torch.tensor([prompt] * count)
        found = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=body["max_tokens"],
            min_new_tokens=body.get("min_tokens", 0),
            **how,
        )
        return {"choices": [self._choice(row.tolist(), len(prompt), body) for row in found]}

    def _choice(self, ids: list[int], start: int, body: dict[str, Any]) -> dict[str, Any]:
        ends = set(self.model.generation_config.eos_token_id)
        length = next((n for n, i in enumerate(ids[start:], 1) if i in ends), len(ids) - start)
        ids = ids[: start + length]
        with torch.inference_mode():
            log_p = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        given = [None, *(float(log_p[place - 1, ids[place]]) for place in range(1, len(ids)))]
        shown = ids if body.get("echo") else ids[start:]
        said = [i for i in shown if i != self.tokenizer.eos_token_id]
        choice = {
            "text": self.tokenizer.decode(said, skip_special_tokens=True),
            "finish_reason": "stop" if ids[-1] in ends else "length",
            "logprobs": {"token_logprobs": given if body.get("echo") else given[start:]},
        }
        return {**choice, "token_ids": shown} if self.gives_ids else choice


@contextmanager
def serving(folder: Path, *, name: str, gives_ids: bool = True) -> Iterator[Server]:
    """The server, running."""
    server = Server(folder, name=name, gives_ids=gives_ids)
    thread = Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
