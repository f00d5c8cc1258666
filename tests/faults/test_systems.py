"""Other systems than Linux: what their Python and their file systems lack is taken away, and the
verbs do what they do here."""

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

import aligncap.storage as storage
from support.killer import wait_until

MACOS = "import os\ndel os.sched_getaffinity\n"
WINDOWS = (
    MACOS
    + """
import sys
from pathlib import Path

sys.modules["fcntl"] = None
del os.register_at_fork, os.fork
kill, replace, rename = os.kill, os.replace, os.rename

def no_question(process, number):
    assert number, "it would send Ctrl-C"
    kill(process, number)

def unless_open(move):
    def moved(source, target, **folders):
        held = set()
        for one in Path("/proc/self/fd").iterdir():
            try:
                held.add(os.readlink(one))
            except OSError:
                pass
        for path in (source, target):
            if os.path.realpath(path) in held:
                raise PermissionError(13, "Access is denied", os.fspath(path))
        move(source, target, **folders)
    return moved

os.kill, os.replace, os.rename = no_question, unless_open(replace), unless_open(rename)
"""
)
"""Code that is run before everything else."""

RUN = """
import sys, aligncap.cli.outputs, aligncap.captioner.captioner, aligncap.tts.runs, aligncap.storage
from types import SimpleNamespace
for module in (aligncap.cli.outputs, aligncap.storage):
    module.sys = SimpleNamespace(platform={platform!r})
if {platform!r} == "win32":
    aligncap.tts.runs.Connection = type("NoPipe", (), {{}})  # its pipes are of another class
from aligncap.cli.main import run
run()
"""
SYSTEMS = {"darwin": MACOS, "win32": WINDOWS}


def command_on(system: str, folder: Path, *arguments: object) -> dict[str, Any]:
    """Arguments of `subprocess` for a command of aligncap there."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SYSTEMS[system], "utf-8")
    paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "args": [sys.executable, "-c", RUN.format(platform=system), *map(str, arguments)],
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
        "encoding": "utf-8",
    }


def ran_on(system: str, folder: Path, *arguments: object) -> str:
    """What a command prints there; it has to succeed."""
    ran = subprocess.run(**command_on(system, folder, *arguments), capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_clip_is_captioned_and_measured(system: str, tmp_path: Path, clip: Path) -> None:
    assert f"{clip}  (" in ran_on(system, tmp_path, "caption", clip)
    assert "LUFS" in ran_on(system, tmp_path, "measure", clip)


def test_a_run_goes_on_where_no_open_file_is_replaced(
    tmp_path: Path, example_clips: list[Path]
) -> None:
    output = tmp_path / "out.jsonl"
    ran_on("win32", tmp_path, "caption", example_clips[0], "-o", output)
    first = output.read_bytes()
    with output.open("ab") as file:
        file.write(first[:40])  # what a kill tears
    ran_on("win32", tmp_path, "caption", *example_clips[:2], "-o", output, "--resume")
    assert output.read_bytes().startswith(first)
    lines = output.read_text("utf-8").splitlines()
    assert [json.loads(line)["file"] for line in lines] == list(map(str, example_clips[:2]))
    ran_on("win32", tmp_path, "caption", example_clips[0], "-o", output, "--overwrite")
    assert output.read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_corpus_is_annotated(jobs: int, tmp_path: Path, example_clips: list[Path]) -> None:
    pytest.importorskip("pyarrow")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for clip in example_clips[:2]:
        (corpus / clip.name).write_bytes(clip.read_bytes())
    options = ("--out", tmp_path / "out", "--jobs", jobs, "--shard-rows", 1)
    ran_on("win32", tmp_path, "annotate", corpus, *options)
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == 2


@pytest.mark.slow
def test_captions_are_served(tmp_path: Path, clip: Path) -> None:
    pytest.importorskip("fastapi")
    body = json.dumps({"audio": base64.b64encode(clip.read_bytes()).decode()}).encode()
    refused = json.dumps({"audio": base64.b64encode(b"no sound").decode()}).encode()
    command = command_on("win32", tmp_path, "serve", "--port", 0)
    with subprocess.Popen(**command, stdout=subprocess.PIPE) as process:
        try:
            address = process.stdout.readline().split()[2].rstrip(",")
            wait_until(lambda: answered(f"{address}/captions", body)[0] == 200)
            assert json.loads(answered(f"{address}/captions", body)[1])["caption"]
            code, said = answered(f"{address}/captions", refused)
            assert (code, str(tmp_path) in said) == (422, False)
        finally:
            process.kill()


def answered(address: str, body: bytes) -> tuple[int, str]:
    """Code and text of the answer to a POST; 0 where nobody listens."""
    request = Request(address, body, {"Content-Type": "application/json"})
    try:
        with urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except URLError as error:
        return 0, str(error)


def test_what_another_process_may_be_writing_stays_where_it_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / f".a.json.999999999-1@{socket.gethostname()}.partial"
    left.touch()
    monkeypatch.setattr(sys, "platform", "win32")
    storage.write_atomic(tmp_path / "a.json", "{}")
    assert left.exists()
    monkeypatch.undo()
    storage.write_atomic(tmp_path / "a.json", "{}")
    assert not left.exists()
