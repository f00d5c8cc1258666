"""What a verb writes, the next reads: every pair of verbs that a user would join.

From tokens and rows to trained, merged and served models: tests/test_whole_way.py.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from aligncap.captioner.checkpoint import find_model
from aligncap.data.manifest import read_manifest
from aligncap.errors import DataError
from faults.conftest import Aligncap
from support.corpora import lines

BLEU = ("--metrics", "bleu1", "--format", "json")


@pytest.fixture
def corpus(aligncap: Aligncap, world: Path) -> Path:
    """`corpus folder` of two speakers whose recordings have one name, split."""
    ran = aligncap("corpus", "folder", world / "r", "-o", world / "c", "--split", "random")
    assert "2 clips" in ran.out
    return world / "c"


def objects(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def evaluated(aligncap: Aligncap, hypotheses: Path, references: Path, *more: object) -> float:
    files = ("--hypotheses", hypotheses, "--references", references)
    ran = aligncap("evaluate", *files, *BLEU, *more)
    assert ran.code == 0, ran.err
    return float(json.loads(ran.out)["bleu1"]["value"])


def test_corpus_caption_evaluate_by_ids(aligncap: Aligncap, corpus: Path) -> None:
    manifest, output = corpus / "manifest.jsonl", corpus / "captions.jsonl"
    assert aligncap("caption", manifest, "-o", output).code == 0
    assert [one["id"] for one in objects(output)] == ["anna/001", "ben/001"]
    assert evaluated(aligncap, output, manifest) > 0
    assert evaluated(aligncap, output, manifest, "--baseline", output) > 0


def test_corpus_caption_of_its_folder_evaluate_by_files(
    aligncap: Aligncap, corpus: Path, monkeypatch
) -> None:
    """Captions of a folder have no ids; the references name the same recordings another way."""
    monkeypatch.chdir(corpus.parent)
    assert aligncap("caption", "./r", "-o", "captions.jsonl").code == 0
    assert evaluated(aligncap, Path("captions.jsonl"), Path("c/manifest.jsonl")) > 0


def test_captions_without_ids_or_known_files_do_not_collide_in_silence(
    aligncap: Aligncap, world: Path
) -> None:
    output = world / "captions.jsonl"
    assert aligncap("caption", world / "r", "-o", output).code == 0
    references = lines(world / "refs.jsonl", '{"id": "001", "captions": ["A calm voice."]}')
    ran = aligncap("evaluate", "--hypotheses", output, "--references", references, *BLEU)
    ran.refused("clip '001' is in line 1 already; keep one of the two, or give each line its id")


def test_each_part_of_a_split_is_captioned_measured_and_evaluated(
    aligncap: Aligncap, corpus: Path
) -> None:
    parts = [path for path in sorted(corpus.glob("t*.jsonl")) if path.stat().st_size]
    assert parts
    for part in parts:
        output = corpus / f"captions-{part.name}"
        assert aligncap("caption", part, "-o", output).code == 0
        assert evaluated(aligncap, output, part) > 0
        measured = aligncap("measure", part, "--format", "jsonl").out.splitlines()
        ids = [one["id"] for one in objects(part)]
        assert [json.loads(line)["id"] for line in measured] == ids


def test_a_split_of_what_a_corpus_wrote_and_a_look_at_both(aligncap, corpus: Path) -> None:
    ran = aligncap("corpus", "split", corpus / "manifest.jsonl", "-o", corpus.parent / "parts")
    assert ran.out
    parts = (corpus.parent / "parts").glob("*.jsonl")
    assert sorted(one["id"] for part in parts for one in objects(part)) == ["anna/001", "ben/001"]
    assert "2 clips" in aligncap("corpus", "doctor", corpus / "manifest.jsonl").out
    assert "2 clips" in aligncap("corpus", "doctor", corpus).out


def test_a_manifest_s_own_columns_are_kept(aligncap: Aligncap, world: Path) -> None:
    row = {"id": 7, "file": "r/anna/001.ogg", "speaker": "anna", "session": [1], "emotion": "sad"}
    row |= {"language": "pl", "captions": ["A voice."], "duration": 3, "error": "old", "text": "hm"}
    manifest = lines(world / "m.jsonl", json.dumps(row), '{"id": "b", "file": "absent.wav"}')
    for verb in ("caption", "measure"):
        output = world / f"{verb}.jsonl"
        lines(output, *aligncap(verb, manifest, "--format", "jsonl").out.splitlines())
        good, bad = objects(output)
        assert {key: good[key] for key in ("id", "speaker", "session", "text")} == {
            "id": 7, "speaker": "anna", "session": [1], "text": "hm"
        }  # fmt: skip
        assert {"captions", "duration", "error"}.isdisjoint(good)
        assert good.get("language", "en") == "en"
        assert bad.keys() == {"id", "file", "error"}
    references = [{"id": 7, "captions": ["A loud voice."]}, {"id": "b", "captions": ["A voice."]}]
    refs = lines(world / "refs.jsonl", *map(json.dumps, references))
    assert evaluated(aligncap, world / "caption.jsonl", refs) >= 0


def test_a_csv_has_ids_and_speakers(aligncap: Aligncap, world: Path) -> None:
    ran = aligncap("caption", world / "manifest.jsonl", "--format", "csv")
    rows = csv.DictReader(ran.out.splitlines())
    assert [(row["id"], row["speaker"]) for row in rows] == [
        ("anna/001", "anna"), ("ben/001", "ben")
    ]  # fmt: skip


def test_clips_of_one_name_without_ids_are_refused(aligncap: Aligncap, world: Path) -> None:
    rows = [{"file": "r/anna/001.ogg"}, {"file": "r/ben/001.ogg"}]
    manifest = lines(world / "m.jsonl", *map(json.dumps, rows))
    with pytest.raises(DataError, match=r"m\.jsonl:2: has no id, and its file is called like"):
        list(read_manifest(manifest))
    ran = aligncap("corpus", "split", manifest, "-o", world / "parts")
    ran.refused("give each clip an id of its own")
    same = lines(world / "same.jsonl", json.dumps(rows[0]), json.dumps(rows[0]))
    assert [one.id for one in read_manifest(same)] == ["001", "001"]


def test_a_caption_is_given_to_clues(aligncap: Aligncap, world: Path) -> None:
    captioned = aligncap("caption", world / "r", "--format", "jsonl").out.splitlines()
    texts = "\n".join(json.loads(line)["caption"] for line in captioned).encode()
    found = aligncap("clues", "-", "--format", "jsonl", stdin=texts).out.splitlines()
    assert [json.loads(line)["clues"][0]["trait"] for line in found] == ["volume", "volume"]


def test_a_corpus_becomes_tokens_once(aligncap: Aligncap, corpus: Path) -> None:
    command = ("tokens", corpus / "manifest.jsonl", "--tokenizer", "builtin")
    command += ("--weights", find_model("mini"), "-o", corpus / "tokens")
    assert "2 clips encoded, 0 there already, 0 failed" in aligncap(*command).out
    assert "0 clips encoded, 2 there already, 0 failed" in aligncap(*command).out


def test_from_a_corpus_to_pairs_and_back(aligncap: Aligncap, corpus: Path) -> None:
    store = corpus / "s.sqlite"
    candidates = ("prefer", "candidates", corpus / "manifest.jsonl", "-s", store, "--count", 2)
    assert "2 clips added" in aligncap(*candidates).out
    assert "0 clips added, 2 there already" in aligncap(*candidates).out
    assert aligncap("prefer", "judge", store).code == 0
    assert aligncap("prefer", "pairs", store, "--margin", 0, "--gold").code == 0
    assert aligncap("prefer", "agreement", store, "--format", "jsonl").code == 0
    for form in ("trl", "llama-factory"):
        pairs, other = corpus / f"{form}.jsonl", corpus / f"{form}.sqlite"
        assert aligncap("prefer", "export", store, pairs, "--format", form).code == 0
        assert aligncap("prefer", "import", other, pairs).code == 0
        again = corpus / f"{form}-again.jsonl"
        assert aligncap("prefer", "export", other, again, "--format", form).code == 0
        assert again.read_bytes() == pairs.read_bytes()
        assert aligncap("prefer", "judge", other).code == 0
        assert aligncap("prefer", "pairs", other, "--margin", 0).code == 0


def test_pairs_become_rows_by_the_rows_of_their_clips(aligncap: Aligncap, world: Path) -> None:
    out = world / "preferences.jsonl"
    ran = aligncap("prefer", "rows", world / "s.sqlite", out, "--rows", world / "rows.jsonl")
    assert ran.out == f"{out}: 2 pairs in 2 preference rows\n"


def test_a_folder_that_was_moved_whole_reads_as_before(aligncap: Aligncap, corpus: Path) -> None:
    """Manifests name recordings relative to themselves."""
    moved = corpus.parent.with_name("moved")
    shutil.move(corpus.parent, moved)
    assert aligncap("caption", moved / "c" / "manifest.jsonl").code == 0
