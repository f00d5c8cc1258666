"""`aligncap prefer` from a manifest to pairs for another trainer, with the built-in model."""

import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from aligncap.preference.store import Annotation, Clip, ClipCandidates, PreferenceStore, Provenance
from cli.conftest import Aligncap
from support.corpora import lines
from support.killer import finish, start
from support.preferences import candidate
from support.server import saying, serving


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, example_clips: list[Path]) -> Path:
    """Three of the example clips with labels, and one that is not there."""
    path = tmp_path_factory.mktemp("prefer") / "manifest.jsonl"
    rows = [
        {"id": clip.stem, "file": os.path.relpath(clip, path.parent), "emotion": "neutral"}
        for clip in example_clips
        if clip.stem in ("man-plain", "woman-slow-soft", "man-loud-fast")
    ]
    return lines(path, *map(json.dumps, [*rows, {"id": "missing", "file": "missing.wav"}]))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two clips of three captions each, made without a model."""
    path = tmp_path / "s.sqlite"
    source = Provenance(model="fake", fingerprint="", method="beam")
    with PreferenceStore(path) as opened:
        for name in ("u1", "u2"):
            texts = ("He sounds sad.", "He sounds angry.", "He sounds calm.")
            found = tuple(candidate(text, name) for text in texts)
            clip = Clip(name, f"{name}.wav", emotion="sad")
            opened.add_findings([(ClipCandidates(clip, "en", found), source)])
    return path


@pytest.mark.parametrize("method", ["beam", "sample"])
def test_candidates_of_the_built_in_model(aligncap, manifest, tmp_path, method: str) -> None:
    path = tmp_path / "s.sqlite"
    command = ("prefer", "candidates", manifest, "--store", path, "--count", "3")
    ran = aligncap(*command, "--method", method)
    assert ran.code == 1  # one recording is not there
    assert "missing.wav" in ran.err
    assert re.match(rf"{path}: 3 clips added, 0 there already, 1 failed; \d+ captions\n", ran.out)
    again = aligncap(*command, "--method", method)
    assert again.out.startswith(f"{path}: 0 clips added, 3 there already, 1 failed")
    with PreferenceStore(path) as opened:
        groups = list(opened.groups())
        assert len(groups) == 3
        least = 2 if method == "beam" else 1  # samples that say the same are one
        for clip, language, found in groups:
            assert clip.facts is not None
            assert language == "en"
            mine = [one for one in found if one.method == method]
            assert least <= len(mine) <= 3
            assert all(one.token_ids and one.log_probability < 0 for one in mine)
            assert len(found) == len(mine) + 1  # and one written from the labels
        assert {one.model for one in opened.sources()} == {"mini", "corpus"}
    judged = aligncap("prefer", "judge", path)
    assert "captions judged by evidence|weights:1.5,0.5,0.1,2,2,0.25,0.25|" in judged.out


def test_diverse_beams_of_an_exported_model_are_refused(aligncap, manifest, tmp_path) -> None:
    command = ("prefer", "candidates", manifest, "--store", tmp_path / "s.sqlite")
    ran = aligncap(*command, "--method", "diverse")
    ran.refused("mini: is an exported model, and diverse beams need torch")


def test_from_candidates_to_a_file_and_back(aligncap, store: Path, tmp_path: Path) -> None:
    assert aligncap("prefer", "judge", store).code == 0
    ran = aligncap("prefer", "pairs", store)
    assert ran.out == f"{store}: 4 pairs of 2 clips, of 2\n"
    ran = aligncap("prefer", "pairs", store, "--differ")
    assert ran.out.startswith(f"{store}: 4 pairs of 2 clips, of 2\n100% of 4 pairs differ in what")
    again = tmp_path / "again.jsonl"
    for name in ("trl", "llama-factory"):
        out, other = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.sqlite"
        ran = aligncap("prefer", "export", store, out, "--format", name)
        assert ran.out == f"{out}: 4 pairs for {name}\n"
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert all("sad" in json.dumps(row["chosen"]) for row in rows)
        assert aligncap("prefer", "import", other, out).out == f"{other}: 4 pairs from {out}\n"
        aligncap("prefer", "export", other, again, "--format", name, "--overwrite")
        assert again.read_bytes() == out.read_bytes()


def test_what_is_not_judged_yet_is_said(aligncap: Aligncap, store: Path) -> None:
    cure = f"no judgement of 'evidence'; run: aligncap prefer judge {store}"
    aligncap("prefer", "pairs", store).refused(cure)
    aligncap("prefer", "judge", store)
    with PreferenceStore(store) as opened:
        found = ClipCandidates(Clip("u3", "u3.wav"), "en", (candidate("New.", "u3"),))
        opened.add_findings([(found, opened.sources()[0])])
    ran = aligncap("prefer", "pairs", store)
    assert "1 captions are not judged by evidence yet" in ran.err


def test_weights_are_settings(aligncap: Aligncap, store: Path) -> None:
    ran = aligncap("prefer", "judge", store, "--weight", "emotion=3", "--weight", "untold=0")
    assert "weights:1.5,0.5,0,3,2,0.25" in ran.out


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("judge", ["--weight", "emotoin=3"], "did you mean 'emotion'"),
        ("judge", ["--weight", "emotion=much"], "write NAME=NUMBER, such as emotion=0.5"),
        ("judge", ["--judge", "llm"], "give --judge-model, and --judge-url"),
        ("pairs", ["--judge", "evidens"], "did you mean 'evidence'"),
        ("annotate", ["--audio-root", ".", "--port", "0"], "u1.wav: no such recording"),
    ],
)
def test_a_mistake_is_one_line(aligncap, store: Path, verb, options, message) -> None:
    if verb == "annotate":
        pytest.importorskip("fastapi", reason="needs the serve extra")
    aligncap("prefer", verb, store, *options).refused(message)
    if verb != "annotate":
        cure = "no such store; make one with: aligncap prefer candidates"
        aligncap("prefer", verb, store.with_name("none.sqlite")).refused(cure)


def test_the_llm_judge_gets_the_key_and_the_prompts(aligncap, store, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNCAP_JUDGE_KEY", "secret")
    template = "Ours: $instruction $references $candidates"
    (tmp_path / "p-score.en.txt").write_text(template, "utf-8")
    ratings = dict.fromkeys(("richness", "consistency", "fluency", "adherence"), 8)
    one = ratings | {"contradicted": [], "unsupported": []}
    reply = json.dumps({f"C{n}": one for n in (1, 2, 3)})
    with serving(lambda asked: saying(reply)) as server:
        ran = aligncap(
            *("prefer", "judge", store, "--judge", "llm", "--judge-model", "small"),
            *("--judge-url", server.url, "--judge-prompts", tmp_path),
            *("--judge-cache", tmp_path / "replies.sqlite"),
        )
    assert ran.code == 0, ran.err
    assert "6 captions judged by llm|judge:small|" in ran.out
    assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer secret"}
    assert all(asked.prompt.startswith("Ours: ") for asked in server.asked)
    assert "secret" not in ran.out + ran.err


def test_people_and_judges_agree(aligncap: Aligncap, store: Path) -> None:
    aligncap("prefer", "judge", store)
    with PreferenceStore(store) as opened:
        for _, _, (sad, angry, calm) in opened.groups():
            for person, first, second in (("a", sad, angry), ("b", sad, angry), ("b", calm, sad)):
                name = f"{person}{first.key}{second.key}"
                chosen = "first" if first is sad else "second"
                opened.annotations.add(Annotation(name, person, first.key, second.key, chosen))
    assert aligncap("prefer", "judge", store, "--judge", "human").code == 0
    ran = aligncap("prefer", "agreement", store, "--format", "jsonl")
    found = json.loads(ran.out)
    assert (found["people"]["annotators"], found["people"]["shared_pairs"]) == (2, 2)
    assert found["accuracy"] == [{"judge": "evidence", "choices": 6, "accuracy": 1.0}]
    # Both put sad first and leave the other two tied.
    (tau,) = found["tau_b"]
    assert tau == {"judges": ["evidence", "human"], "tau_b": 1.0, "clips": 2}
    text = aligncap("prefer", "agreement", store).out
    assert "Kendall's tau-b of evidence and human: 1.000 (within 2 clips)" in text
    assert "evidence prefers what people prefer: 1.000 (of 6 choices)" in text


@pytest.mark.slow
def test_the_page_is_served_until_ctrl_c(store: Path, example_clips: list[Path]) -> None:
    pytest.importorskip("uvicorn", reason="needs the serve extra")
    for name in ("u1", "u2"):
        (store.parent / f"{name}.wav").write_bytes(example_clips[0].read_bytes())
    command = ["-m", "aligncap", "prefer", "annotate", store, "--audio-root", store.parent]
    run = start(*command, "--port", "0", "--annotator", "anna")
    said = run.stdout.readline()
    address = re.match(r"2 pairs to judge at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)", said)
    assert address, said
    with urllib.request.urlopen(address[1]) as page:
        assert b"Which caption fits the voice?" in page.read()
    run.send_signal(signal.SIGINT)
    _, err = finish(run)
    assert err == f"aligncap: 0 choices are in {store}\n"


def test_run_says_what_it_would_do(aligncap: Aligncap, repository: Path, tmp_path: Path) -> None:
    recipe = repository / "recipes" / "mini" / "prefer.toml"
    ran = aligncap("prefer", "run", recipe, "--rounds", "2", "--dry-run", "-o", tmp_path / "run")
    described = json.loads(ran.out)
    assert (described["kind"], described["settings"]["rounds"]) == ("prefer", 2)
    assert described["settings"]["candidates"]["count"] == 5
    assert not (tmp_path / "run").exists()
