"""Processes: forked, spawned, many threads, streams that are closed, folders that lead in circles
and names that are not UTF-8."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aligncap.captioner.captioner import Captioner, load, open_generator
from aligncap.captioner.checkpoint import find_model
from aligncap.errors import DataError
from faults.conftest import Aligncap
from support.killer import finish, start


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return load("mini", threads=2)


FORKED = """
import os, signal, sys
import aligncap

captioner = aligncap.load("mini", threads=2, runtime=sys.argv[2])
before = captioner.caption(sys.argv[1]).text
read, write = os.pipe()
child = os.fork()
if not child:
    signal.alarm(120)  # a child that waits for ever ends so
    if sys.argv[3] != "idle":
        grandchild = sys.argv[3] == "grandchild" and os.fork()
        if not grandchild:
            os.write(write, captioner.caption(sys.argv[1]).text.encode())
        elif os.waitpid(grandchild, 0)[1]:
            os._exit(3)
    sys.exit(0)
os.close(write)
assert os.waitpid(child, 0)[1] == 0
after = captioner.caption(sys.argv[1]).text
said = os.read(read, 9999).decode()
assert after == before and said == ("" if sys.argv[3] == "idle" else before), (before, said)
"""


@pytest.mark.parametrize("child", ["used", "idle", "grandchild"])
def test_a_model_works_in_the_child_of_a_fork_and_the_child_ends(
    example_clips: list[Path], child: str
) -> None:
    finish(start("-c", FORKED, example_clips[0], "auto", child))


POOL = """
import multiprocessing, sys
import aligncap

def caption(clip):
    return captioner.caption(clip).text

captioner = aligncap.load("mini", threads=2)
texts = [caption(clip) for clip in sys.argv[1:]]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(caption, sys.argv[1:]) == texts
"""


@pytest.mark.slow
def test_a_pool_of_forked_processes_captions(example_clips: list[Path]) -> None:
    finish(start("-c", POOL, *example_clips[:3]))


def caption_of(captioner: Captioner, clip: Path) -> str:
    return captioner.caption(clip).text


@pytest.mark.slow
def test_a_captioner_is_sent_to_a_process_that_is_spawned(
    captioner: Captioner, example_clips: list[Path]
) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        said = pool.starmap(caption_of, [(captioner, clip) for clip in example_clips[:2]])
    assert said == [caption_of(captioner, clip) for clip in example_clips[:2]]


LOADER = """
import sys
import aligncap
from torch.utils.data import DataLoader, Dataset

class Captions(Dataset):
    def __init__(self, captioner, clips):
        self.captioner, self.clips = captioner, clips
    def __len__(self):
        return len(self.clips)
    def __getitem__(self, number):
        return self.captioner.caption(self.clips[number]).text

if __name__ == "__main__":
    captions = Captions(aligncap.load("mini", threads=2), sys.argv[1:])
    texts = [captions[number] for number in range(len(captions))]
    for context in ("fork", "spawn"):
        loader = DataLoader(captions, None, num_workers=1, multiprocessing_context=context)
        assert list(loader) == texts
"""


@pytest.mark.slow
def test_the_workers_of_a_torch_loader_caption(example_clips: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    finish(start(script, *example_clips[:2]))


TORCH = """
import os, signal, sys
import torch
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(2)
model = GPT2LMHeadModel(GPT2Config(n_embd=256, n_layer=2, n_head=4, vocab_size=5000))
runtime = TorchRuntime(model.eval(), ResponseRules(5000, (0,)))
prompts = [list(range(1, 400))] * 8
before = runtime.generate(prompts, DecodeOptions(max_length=8))
child = os.fork()
if not child:
    signal.alarm(200)
    same = runtime.generate(prompts, DecodeOptions(max_length=8))
    os._exit([[h.ids for h in p] for p in same] != [[h.ids for h in p] for p in before])
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_a_model_of_torch_works_in_the_child_of_a_fork() -> None:
    finish(start("-c", TORCH, env={"OMP_NUM_THREADS": "2"}))


def test_a_captioner_is_pickled_by_its_folder(
    captioner: Captioner, example_clips: list[Path], tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model("mini"), folder)
    monkeypatch.chdir(tmp_path)
    other = load(Path("model"), beam_size=2)
    kept = pickle.dumps(other)
    assert len(kept) < 2_000
    monkeypatch.chdir("/")
    again = pickle.loads(kept)
    assert again.options == other.options
    assert again.signature == other.signature
    assert caption_of(again, example_clips[0]) == caption_of(other, example_clips[0])


def test_a_captioner_that_was_not_loaded_says_so(captioner: Captioner) -> None:
    made = Captioner(
        open_generator(find_model("mini"), threads=1),
        captioner._preprocessor,
        options=captioner.options,
    )
    with pytest.raises(DataError, match=r"mini: was not opened by aligncap\.load"):
        pickle.dumps(made)


def test_threads_share_a_captioner(captioner: Captioner, example_clips: list[Path]) -> None:
    clips = example_clips[:4]
    alone = [caption_of(captioner, clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda clip: caption_of(captioner, clip), clips * 2)) == alone * 2


def run(command: str, folder: Path, **names: object) -> "subprocess.CompletedProcess[str]":
    """`aligncap` as a shell starts it."""
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    environment |= {"A": f"{sys.executable} -m aligncap"} | {k: str(v) for k, v in names.items()}
    shell = ["bash", "-c", command]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_closed_streams(world: Path) -> None:
    """Results that would be lost are an error; what is not needed may be closed."""
    ran = run("$A clues 'A sad man.' >&-", world)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "standard output is closed" in ran.stderr
    ran = run("$A measure - <&-", world)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "neither a path nor sound on standard input" in ran.stderr
    ran = run("$A measure absent.wav r/anna/001.ogg 2>&-", world)
    assert ran.returncode == 1
    assert "absent" not in ran.stdout
    ran = run("$A prefer export s.sqlite out.jsonl <&- 2>&-", world)
    assert ran.returncode == 0
    assert len((world / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_a_verb_quietly(world: Path) -> None:
    verbs = ("measure $(yes r/anna/001.ogg | head -2) r", "clues $(yes sad | head -3000)", "--help")
    for verb in verbs:
        ran = run(f"$A {verb} | true; exit ${{PIPESTATUS[0]}}", world)
        assert (ran.returncode in (0, 1), ran.stderr) == (True, "")


def test_linked_folders_are_searched_once_and_end(aligncap: Aligncap, world: Path) -> None:
    outside = world.with_name("outside")
    shutil.copytree(world / "r" / "anna", outside)
    (world / "r" / "up").symlink_to("..")
    (world / "r" / "anna" / "self").symlink_to(".")
    (world / "r" / "ben-again").symlink_to("ben")
    (world / "r" / "elsewhere").symlink_to(outside)
    (world / "r" / "nowhere").symlink_to("nothing")
    measured = aligncap("measure", world / "r", "--format", "jsonl")
    found = [json.loads(line)["file"] for line in measured.out.splitlines()]
    assert found == [str(world / "r" / name / "001.ogg") for name in ("anna", "ben", "elsewhere")]
    ran = aligncap("corpus", "folder", world / "r", "-o", world / "c")
    assert "2 clips" in ran.out  # anna's sound is in `outside` too, which is a fault
    assert "duplicate" in ran.err


def test_a_link_to_itself_is_one_line(aligncap: Aligncap, world: Path) -> None:
    loop = world / "loop.ogg"
    loop.symlink_to(loop.name)
    for command in (("measure", loop), ("caption", loop, "-o", world / "out.jsonl")):
        ran = aligncap(*command)
        assert ran.code == 1
    ran = aligncap("prefer", "export", world / "s.sqlite", world / "loop.jsonl")
    assert ran.code == 0


@pytest.fixture
def odd(world: Path) -> Path:
    """A folder with a recording whose name is not UTF-8."""
    folder = world / "odd"
    folder.mkdir()
    shutil.copy(world / "r/anna/001.ogg", folder / "caf\udce9.ogg")
    (folder / "caf\udce9.txt").write_text("A calm woman speaks.")
    return folder


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_name_that_is_not_utf8_is_captioned_once(
    aligncap: Aligncap, odd: Path, suffix: str
) -> None:
    output = odd.parent / f"out.{suffix}"
    for more in ((), ("--resume",)):
        assert aligncap("caption", odd, "-o", output, *more).code == 0
        assert output.read_text("utf-8").count("caf\\udce9.ogg") == 1
    if suffix == "jsonl":
        assert json.loads(output.read_text("utf-8"))["file"] == str(odd / "caf\udce9.ogg")


def test_names_that_are_not_utf8_through_corpus_tokens_and_store(
    aligncap: Aligncap, odd: Path
) -> None:
    out = odd.parent / "c"
    assert "1 clips" in aligncap("corpus", "folder", odd, "-o", out).out
    manifest, store = out / "manifest.jsonl", out / "s.sqlite"
    manifest.read_text("utf-8")
    assert "1 clips" in aligncap("corpus", "doctor", out).out
    tokens = ("tokens", manifest, "--tokenizer", "builtin", "-o", out / "tokens")
    candidates = ("prefer", "candidates", manifest, "-s", store, "--count", 2)
    for command, first, again in (
        ((*tokens, "--weights", find_model("mini")), "1 clips encoded", "1 there already"),
        (candidates, "1 clips added", "1 there already"),
    ):
        assert first in aligncap(*command).out
        assert again in aligncap(*command).out
    for verb in ("judge", "pairs"):
        assert aligncap("prefer", verb, store).code == 0
    captions = out / "captions.jsonl"
    assert aligncap("caption", manifest, "-o", captions).code == 0
    files = ("--hypotheses", captions, "--references", manifest, "--metrics", "bleu1")
    for name in ("scores.html", "scores.json"):
        assert aligncap("evaluate", *files, "-o", out / name).code == 0
