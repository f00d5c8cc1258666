"""The Dockerfile, line by line: there is no docker where the tests run."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
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


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine is no failure
def test_its_steps_make_an_environment_that_serves(tmp_path):
    """Each command as it stands, in folders of the test's; what others wrote is not fetched but
    that of the tests' environment."""
    pytest.importorskip("hatchling")
    for name in of("COPY")[0].split()[:-1]:
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(
        ROOT / "src",
        tmp_path / "src",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    home = tmp_path / "opt"
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)

    def run(command: str) -> None:
        here = command.replace("/opt/aligncap", str(home)).replace("/source", str(tmp_path))
        subprocess.run(["sh", "-ec", here], env=environment, check=True)

    made, installed, *others = of("RUN")[0].split(" && ")
    run(made.replace("python", sys.executable, 1))
    (site,) = home.glob("lib/python*/site-packages")
    (site / "tests.pth").write_text(sysconfig.get_path("purelib"))
    run(installed.replace(" install", " install --no-deps --no-build-isolation --quiet"))
    for one in others:
        run(one)
    assert (site / "aligncap" / "models" / "mini").is_dir()
    assert list(site.glob("aligncap-*.dist-info/licenses/NOTICE"))

    command = [*json.loads(of("ENTRYPOINT")[0]), *json.loads(of("CMD")[0])]
    with subprocess.Popen(
        [*command, "--open", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=home,
    ) as server:
        address = "http://127.0.0.1:" + re.findall(r":(\d+)/v1", server.stdout.readline())[0]
        check = json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])
        check[-1] = check[-1].replace("http://127.0.0.1:8000", address)
        while subprocess.run(check, env=environment, capture_output=True).returncode:
            assert server.poll() is None
        clip = ROOT / "examples" / "clips" / "woman-slow-soft.ogg"
        file = {"file": clip.read_bytes()}
        answer = httpx.post(f"{address}/v1/captions", files=file, timeout=600)
        page = httpx.get(address).text
        server.terminate()
    assert answer.json()["language"] == "en"
    assert "</html>" in page
