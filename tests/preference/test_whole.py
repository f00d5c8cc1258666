"""The whole loop on a made-up corpus whose facts are known: nothing is listened to."""

import json
from pathlib import Path

import pytest

from aligncap.alignment.data import read_rows
from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.evidence_judge import EvidenceJudge
from aligncap.preference.row_clips import RowClipSettings, join, read_row_clips, spread
from aligncap.preference.rows import read_preferences
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import Candidate
from aligncap.preference.whole import LearnSettings
from aligncap.recipes import run_recipe
from alignment.tiny_rows import FEELINGS, SOURCE
from preference.po_corpus import write_corpus

COUNT = 30


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Path:
    """A folder of all that the loop reads."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), start, count=COUNT)


def settings_of(corpus: Path, **changes: object) -> RowClipSettings:
    given: dict[str, object] = {
        "rows": corpus / "rows.jsonl",
        "manifests": (corpus / "manifest.jsonl",),
        "facts": corpus / "facts.jsonl",
        **changes,
    }
    return RowClipSettings(**given)  # type: ignore[arg-type]


def test_each_clip_counts_once_and_as_it_is(corpus: Path) -> None:
    clips, source = read_row_clips(settings_of(corpus, clips=8, validation_clips=0))
    assert source == SOURCE
    assert all(one.row.id == f"{one.clip.utterance}#0" for one in clips)
    train = [one for one in clips if one.row.split == "train"]
    assert len(train) == 8
    assert sum(one.row.corpus == "odd" for one in train) == 4
    assert len(clips) - len(train) == 9  # all of them: three of ten
    assert all(one.clip.emotion in FEELINGS and one.clip.facts is not None for one in clips)


def test_a_small_corpus_gives_what_it_has(corpus: Path) -> None:
    rows = [row for row in read_rows(corpus / "rows.jsonl") if row.id.endswith("#0")]
    few = [row for row in rows if row.corpus == "odd"][:2]
    many = [row for row in rows if row.corpus == "even"]
    found = spread([*few, *many], 10)
    assert len(found) == 10
    assert sum(row.corpus == "odd" for row in found) == 2


def test_a_row_without_a_manifest_is_named(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"clip0: is in none of the manifests"):
        join(list(read_rows(corpus / "rows.jsonl")), [], corpus / "facts.jsonl")


def test_the_whole_loop_and_a_second_round(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    summary = run_recipe(corpus / "prefer.toml", output=output, resume=True)
    assert summary["rounds"] == 1
    assert Path(str(summary["model"])) == output / "round-1" / "dpo" / "model"
    rows, source = read_preferences([output / "round-1" / "rows.jsonl"])
    assert source == SOURCE
    assert len(rows) == 17
    assert any(row.pairs for row in rows)
    # The pairs are those of the judge, asked again here.
    judge = EvidenceJudge()
    with PreferenceStore(output / "prefer.sqlite") as store:
        for row in rows:
            clip = store.clip(row.clip.id.removesuffix("#0"))
            assert clip is not None
            said = [Candidate(clip.utterance, "en", text) for text in row.candidates]
            (scores,) = judge.judge([(clip, said)])
            for better, worse in row.pairs:
                assert scores[better].score - scores[worse].score >= 0.1
    done = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    more = run_recipe(corpus / "prefer.toml", overrides=["rounds=2"], output=output, resume=True)
    assert Path(str(more["model"])) == output / "round-2" / "dpo" / "model"
    first = [path for path in done if "round-1" in path.parts]
    assert all(path.stat().st_mtime_ns == done[path] for path in first)
    with PreferenceStore(output / "prefer.sqlite") as store:
        assert len([one for one in store.sources() if one.method == "sample"]) == 2
    recipe = json.loads((output / "round-2" / "dpo" / "recipe.json").read_text("utf-8"))
    assert recipe["settings"]["model"]["start"] == str(output / "round-1" / "dpo" / "model")


@pytest.mark.parametrize(("method", "last"), [("ppo", "evidence"), ("reward+ppo", "model")])
def test_the_other_ways_to_learn(corpus: Path, tmp_path: Path, method: str, last: str) -> None:
    output = tmp_path / "run"
    changes = [f"learn.method={method}", "data.validation_clips=2", "evidence.contradicted=3.5"]
    run_recipe(corpus / "prefer.toml", overrides=changes, output=output, resume=True)
    recipe = json.loads((output / "round-1" / "ppo" / "recipe.json").read_text("utf-8"))
    reward = recipe["settings"]["reward"]
    assert reward["name"] == last
    # PPO follows the judge that the recipe describes, or a model of that judge's preferences.
    assert (reward["evidence"]["contradicted"] == 3.5) == (last == "evidence")
    assert (output / "round-1" / "ppo" / "model").is_dir()


def test_an_unknown_way_to_learn_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ppo'"):
        LearnSettings(method="pppo")
