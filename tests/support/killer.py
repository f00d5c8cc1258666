"""Processes that tests start, wait for, interrupt and kill.

Nothing here depends on how fast the machine is: a test waits for a condition, and a process that
must not end before it is killed stops by itself at a `hold`. The deadlines only end what hangs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DEADLINE_S = 600

Process = subprocess.Popen[str]

_started: list[Process] = []


def start(*command: object, env: dict[str, str] | None = None) -> Process:
    """Start a Python process that can import `aligncap` and the tests; its output is captured."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src"), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets its background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    _started.append(process)
    return process


def torchrun(*command: object) -> Process:
    """Start two processes on this machine that talk by gloo."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    return start(*launcher, *command)


def wait_until(ready: Callable[[], bool], process: Process | None = None) -> None:
    """Wait for a condition; fails where the process ends before, or after `DEADLINE_S`."""
    end = time.monotonic() + DEADLINE_S
    while not ready():
        if process is not None and process.poll() is not None and not ready():
            raise AssertionError(f"it ended with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < end, f"waited for {DEADLINE_S} s in vain"
        time.sleep(0.01)


def finish(process: Process, code: int = 0) -> tuple[str, str]:
    """Wait for the end of a process; returns its output and errors, and fails on another code."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, out + err
    return out, err


def kill(process: Process, *, after_s: float = 0.0) -> None:
    """Kill a process that must not have ended by itself."""
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def kill_leftovers() -> None:
    """Kill what a failed test has left running."""
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()


def hold(gate: Path | None = None) -> None:
    """Within a process that a test started: wait until the test makes the file, or for the kill."""
    end = time.monotonic() + DEADLINE_S
    while gate is None or not gate.exists():
        if time.monotonic() > end:
            os._exit(99)  # the test is gone
        time.sleep(0.01)


def hold_at_step(number: int, gate: Path | None = None) -> None:
    """Within a process that trains: `hold` after so many steps of an optimizer."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    taken = 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1
        if taken == number:
            hold(gate)

    register_optimizer_step_post_hook(count)
