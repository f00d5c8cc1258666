"""What paths mean (folders, globs, manifests, -), and where a progress bar is shown."""

import io
import json
import shutil
from pathlib import Path

import pytest

from aligncap.captioner.checkpoint import find_model
from aligncap.cli.console import Console
from aligncap.cli.main import main


@pytest.fixture
def tree(tmp_path: Path, clip: Path) -> Path:
    for name in ("b.ogg", "a/c.ogg", "a/deep/d.OGG", "a/.hidden.ogg", "a/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, file)
    return tmp_path


def captioned(ran) -> list[str]:
    return [json.loads(line)["file"] for line in ran.out.splitlines()]


def test_a_folder_is_searched_to_its_depth(aligncap, tree: Path) -> None:
    ran = aligncap("caption", tree, "--format", "jsonl")
    assert captioned(ran) == [str(tree / name) for name in ("b.ogg", "a/c.ogg", "a/deep/d.OGG")]


def test_quoted_globs(aligncap, tree: Path) -> None:
    assert captioned(aligncap("caption", f"{tree}/*.ogg", "--format", "jsonl")) == [
        str(tree / "b.ogg")
    ]
    deep = captioned(aligncap("caption", f"{tree}/**/*.ogg", "--format", "jsonl"))
    assert deep == [str(tree / "a/c.ogg"), str(tree / "b.ogg")]


def test_a_glob_that_matches_nothing(aligncap, tree: Path) -> None:
    ran = aligncap("caption", f"{tree}/*.mp3")
    assert ran.code == 1
    assert "no file matches" in ran.err


def test_a_file_named_like_a_glob_is_that_file(aligncap, tree: Path, clip: Path) -> None:
    file = tree / "take[1].ogg"
    shutil.copy(clip, file)
    assert captioned(aligncap("caption", file, "--format", "jsonl")) == [str(file)]


def test_each_file_once(aligncap, tree: Path) -> None:
    ran = aligncap("caption", tree / "b.ogg", tree / "b.ogg", f"{tree}/*.ogg", "--format", "jsonl")
    assert captioned(ran) == [str(tree / "b.ogg")]


def test_a_manifest_is_read_beside_itself_and_a_broken_line_is_one_error(aligncap, tree) -> None:
    manifest = tree / "manifest.jsonl"
    manifest.write_text(
        '{"file": "b.ogg", "emotion": "a label nobody knows"}\n'
        '{"file": "a/c.ogg"\n'
        "\n"
        '["a/c.ogg"]\n'
        '{"file": "a/c.ogg"}\n'
    )
    ran = aligncap("caption", manifest, "--format", "jsonl")
    assert ran.code == 1
    first, broken, list_line, last = map(json.loads, ran.out.splitlines())
    assert first["file"] == str(tree / "b.ogg")
    assert (broken["file"], list_line["file"]) == (f"{manifest}:2", f"{manifest}:4")
    assert "JSON" in broken["error"]
    assert '"file"' in list_line["error"]
    assert last["file"] == str(tree / "a/c.ogg")


def test_paths_on_standard_input(aligncap, tree: Path) -> None:
    stdin = f"{tree}/b.ogg\r\n\n{tree}/a\n".encode()
    ran = aligncap("caption", "-", "--format", "jsonl", stdin=stdin)
    assert captioned(ran) == [str(tree / name) for name in ("b.ogg", "a/c.ogg", "a/deep/d.OGG")]


def test_sound_on_standard_input(aligncap, clip: Path) -> None:
    ran = aligncap("caption", "-", "--format", "jsonl", stdin=clip.read_bytes())
    by_path = aligncap("caption", clip, "--format", "jsonl")
    piped, named = json.loads(ran.out), json.loads(by_path.out)
    assert piped.pop("file") == "stdin"
    named.pop("file")
    assert piped == named


def test_broken_sound_on_standard_input(aligncap) -> None:
    ran = aligncap("caption", "-", stdin=b"RIFF\x00\x00 and then nothing of use")
    assert ran.code == 1
    assert ran.err.startswith("aligncap: stdin: ")


def test_nothing_on_standard_input(aligncap) -> None:
    ran = aligncap("caption", "-", stdin=b"")
    assert ran.code == 1
    assert "neither a path nor sound" in ran.err


def test_a_folder_without_recordings(aligncap, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    ran = aligncap("caption", tmp_path)
    assert ran.code == 1
    assert "no sound file" in ran.err


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
