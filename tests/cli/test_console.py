"""What paths mean (folders, globs, manifests, -), and where a progress bar is shown."""

import io
import json
import shutil
from pathlib import Path

import pytest

from aligncap.captioner.checkpoint import find_model
from aligncap.cli.console import Console
from aligncap.cli.main import main
from cli.conftest import open_fake_model
from support.corpora import lines


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in ("b.ogg", "a/c.ogg", "a/deep/d.OGG", "a/.hidden.ogg", "a/notes.txt", "[1].ogg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / name)
    (folder / "bare").mkdir()
    (folder / "bare" / "readme.txt").write_text("nothing here")
    return folder


@pytest.mark.parametrize(
    ("typed", "stdin", "found"),
    [
        (["{}"], "", ["[1].ogg", "b.ogg", "a/c.ogg", "a/deep/d.OGG"]),
        (["{}/[ab].ogg"], "", ["b.ogg"]),
        (["{}/**/*.ogg"], "", ["[1].ogg", "a/c.ogg", "b.ogg"]),
        (["{}/[1].ogg"], "", ["[1].ogg"]),  # a file named like a glob
        (["{}/b.ogg", "{}/b.ogg", "{}/b.*"], "", ["b.ogg"]),
        (["-"], "{}/b.ogg\r\n\n{}/a\n", ["b.ogg", "a/c.ogg", "a/deep/d.OGG"]),
    ],
)
def test_paths_are_files_folders_and_globs_each_file_once(aligncap, tree, typed, stdin, found):
    typed = [one.replace("{}", str(tree)) for one in typed]
    stdin = stdin.replace("{}", str(tree)).encode()
    ran = aligncap("caption", *typed, "--format", "jsonl", stdin=stdin)
    files = [json.loads(line)["file"] for line in ran.out.splitlines()]
    assert files == [str(tree / name) for name in found]


@pytest.mark.parametrize(
    ("typed", "stdin", "message"),
    [
        ("{}/*.mp3", b"", "no file matches"),
        ("{}/bare", b"", "no sound file"),
        ("-", b"", "neither a path nor sound"),
        ("-", b"RIFF\x00\x00 and then nothing of use", "aligncap: stdin: "),
    ],
)
def test_nothing_to_caption_is_one_line(aligncap, tree: Path, typed, stdin, message) -> None:
    ran = aligncap("caption", typed.format(tree), stdin=stdin)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert message in ran.err


def test_a_manifest_is_read_beside_itself_and_a_broken_line_is_one_error(aligncap, tree) -> None:
    good, broken = '{"file": "b.ogg", "emotion": "a label nobody knows"}', '{"file": "a/c.ogg"'
    manifest = lines(tree / "m.jsonl", good, broken, "", '["a/c.ogg"]', '{"file": "a/c.ogg"}')
    ran = aligncap("caption", manifest, "--format", "jsonl")
    assert ran.code == 1
    first, broken, listed, last = map(json.loads, ran.out.splitlines())
    assert (first["file"], last["file"]) == (str(tree / "b.ogg"), str(tree / "a/c.ogg"))
    assert (broken["file"], listed["file"]) == (f"{manifest}:2", f"{manifest}:4")
    assert "JSON" in broken["error"]
    assert '"file"' in listed["error"]


def test_sound_on_standard_input(aligncap, clip: Path) -> None:
    piped = json.loads(aligncap("caption", "-", "--format", "jsonl", stdin=clip.read_bytes()).out)
    named = json.loads(aligncap("caption", clip, "--format", "jsonl").out)
    assert piped == named | {"file": "stdin"}


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
def test_a_bar_does_not_run_through_the_captions(stdout, to_file, shown, example_clips, tmp_path):
    err = Terminal()
    console = Console(stdout=stdout(), stderr=err, load_model=open_fake_model)
    output = ["--output", str(tmp_path / "out.jsonl")] if to_file else []
    assert main(["caption", *map(str, example_clips[:2]), *output], console=console) == 0
    assert ("captioning" in err.getvalue()) == shown


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_marks_are_coloured_and_tokens_counted_on_a_terminal_only(kind, example_clips, tmp_path):
    console = Console(stdout=kind(), stderr=kind(), load_model=open_fake_model)
    assert main(["caption", str(example_clips[0]), "--evidence"], console=console) == 0
    assert ("\x1b[" in console.stdout.getvalue()) == (kind is Terminal)
    rows = [{"id": clip.stem, "file": str(clip)} for clip in example_clips[:2]]
    manifest = lines(tmp_path / "manifest.jsonl", *map(json.dumps, rows))
    console = Console(stdout=io.StringIO(), stderr=kind())
    typed = ["tokens", str(manifest), "--tokenizer", "builtin", "--output", str(tmp_path)]
    assert main([*typed, "--weights", str(find_model("mini"))], console=console) == 0
    assert console.stdout.getvalue().count("clips encoded") == 1
    shown = console.stderr.getvalue()
    assert "2/2" in shown if kind is Terminal else shown == ""
