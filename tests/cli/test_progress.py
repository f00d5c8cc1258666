"""A progress bar appears where somebody is there to see it, and nowhere else."""

import io
import json
from pathlib import Path

import pytest

from aligncap.captioner.loading import find_model
from aligncap.cli.console import Console
from aligncap.cli.main import main


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdout", "to_file", "shown"),
    [
        (io.StringIO, False, True),  # captions into a pipe
        (Terminal, True, True),  # captions into a file
        (Terminal, False, False),  # captions on the same terminal
    ],
)
def test_a_bar_does_not_run_through_the_captions(
    stdout, to_file: bool, shown: bool, example_clips: list[Path], tmp_path: Path, open_fake
) -> None:
    err = Terminal()
    console = Console(stdout=stdout(), stderr=err, load_model=open_fake)
    output = ["--output", str(tmp_path / "out.jsonl")] if to_file else []
    assert main(["caption", *map(str, example_clips[:2]), *output], console=console) == 0
    assert ("captioning" in err.getvalue()) == shown


def test_marks_are_coloured_on_a_terminal_only(example_clips: list[Path], open_fake) -> None:
    written = {}
    for kind in (Terminal, io.StringIO):
        out = kind()
        console = Console(stdout=out, stderr=io.StringIO(), load_model=open_fake)
        main(["caption", str(example_clips[0]), "--evidence"], console=console)
        written[kind] = out.getvalue()
    assert "\x1b[" in written[Terminal]
    assert "\x1b[" not in written[io.StringIO]


def test_tokens_counts_a_manifest_and_does_not_hold_it(
    example_clips: list[Path], tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    rows = [{"id": clip.stem, "file": str(clip)} for clip in example_clips[:2]]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = {}
    for kind in (Terminal, io.StringIO):
        console = Console(stdout=io.StringIO(), stderr=kind())
        typed = ["tokens", str(manifest), "--tokenizer", "builtin", "--output", str(tmp_path)]
        typed += ["--weights", str(find_model("mini"))]
        assert main(typed, console=console) == 0
        assert console.stdout.getvalue().count("clips encoded") == 1
        shown[kind] = console.stderr.getvalue()
    assert "2/2" in shown[Terminal]
    assert shown[io.StringIO] == ""
