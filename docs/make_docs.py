"""Write what the code can say of itself: docs/cli.md and the README's example output.

make docs            writes both
python docs/make_docs.py --check    exits 1 where docs/cli.md is stale
"""

import difflib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLI_PAGE = ROOT / "docs" / "cli.md"
README = ROOT / "README.md"

VERBS = (
    *("caption", "measure", "clues", "train", "finetune", "tokens", "merge", "export"),
    *("evaluate", "annotate", "serve", "mcp", "prefer"),
    *("prefer candidates", "prefer judge", "prefer pairs", "prefer annotate"),
    *("prefer agreement", "prefer rows", "prefer export"),
    *("prefer import", "prefer run"),
    *("corpus", "corpus emosec", "corpus split", "corpus doctor"),
    "reproduce",
)

HEADING = f"""\
# The command line

<!-- Written by `make docs` with typer {version("typer")}; edit src/aligncap/cli instead. -->

Exit code: 0 all went well, 1 some file could not be used, 2 the command could not be carried out,
130 stopped by Ctrl-C. An error is one line on standard error that begins with `aligncap:`; what is
wrong with a command line itself is told with the usage.
"""

EXAMPLE = re.compile(r"(<!-- example: (.+) -->\n```text\n)(.*?)(```\n)", re.DOTALL)
"""A block of the README that holds the output of the command in its comment."""


def output_of(arguments: list[str]) -> str:
    """What `aligncap` prints, at 80 columns and without colour."""
    command = [sys.executable, "-m", "aligncap", *arguments]
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "PATH": "", "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = str(ROOT / "src")  # this tree, whatever is installed
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise SystemExit(f"aligncap {' '.join(arguments)} failed:\n{run.stderr}")
    return "\n".join(line.rstrip() for line in run.stdout.strip("\n").split("\n")) + "\n"


def cli_page() -> str:
    """docs/cli.md as it should be."""
    parts = [HEADING, f"```text\n{output_of(['--help'])}```\n"]
    pages = ((verb, output_of([*verb.split(), "--help"])) for verb in VERBS)
    parts += [f"## {verb}\n\n```text\n{page}```\n" for verb, page in pages]
    return "\n".join(parts)


def readme_page(text: str) -> str:
    """The README with the output of its example commands."""
    return EXAMPLE.sub(
        lambda block: block[1] + output_of(block[2].split()[1:]) + block[4],
        text,
    )


def main(arguments: list[str]) -> int:
    """Write or check; returns 1 where a check finds a stale page."""
    page = cli_page()
    if arguments == ["--check"]:
        there = CLI_PAGE.read_text("utf-8") if CLI_PAGE.exists() else ""
        change = difflib.unified_diff(there.splitlines(), page.splitlines(), "there", "now", n=1)
        sys.stdout.writelines(f"{line}\n" for line in change)
        return int(there != page)
    CLI_PAGE.write_text(page, "utf-8")
    README.write_text(readme_page(README.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
