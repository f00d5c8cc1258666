"""The Dockerfile, line by line: there is no docker where the tests run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the serve extra")

from aligncap.cli.main import main
from support.served import served

ROOT = Path(__file__).resolve().parents[2]
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text("utf-8")).splitlines()
STEPS = [tuple(line.split(None, 1)) for line in LINES if line and not line.startswith("#")]


def of(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def test_what_it_copies_is_there_and_nothing_else_is_sent():
    copied = {
        name for rest in of("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]
    }
    assert all((ROOT / name).exists() for name in copied)
    rules = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


def test_it_does_not_run_as_root():
    names = [step for step, _ in STEPS]
    assert int(of("USER")[0]) > 0
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert names[names.index("USER") :].count("RUN") == 0


def test_its_command_asks_for_a_token(capsys):
    command = json.loads(of("CMD")[0])
    assert json.loads(of("ENTRYPOINT")[0]) == ["aligncap"]
    assert main(command) == 2
    assert "--token-file" in capsys.readouterr().err


def test_its_health_check_tells_a_server_that_loads_from_one_that_serves():
    _, program, code = json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])
    assert (program, of("EXPOSE")) == ("-c", ["8000"])

    class Loaded:
        meta = None

    def check(address: str) -> int:
        there = code.replace("http://127.0.0.1:8000", address)
        return subprocess.run([sys.executable, "-c", there], capture_output=True).returncode

    def fails():
        raise OSError("no model")

    with served(fails) as address:
        assert check(address) != 0
    with served(Loaded) as address:
        while check(address) != 0:
            pass
