"""The whole loop on a made-up corpus whose facts are known: nothing is listened to."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment.examples import read_rows
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.preference.candidates import RowClipSettings, join, read_row_clips, spread
from aligncap.preference.examples import read_preferences
from aligncap.preference.judges import EvidenceJudge
from aligncap.preference.pipeline import LearnSettings
from aligncap.preference.store import Annotation, Candidate, PreferenceStore
from aligncap.recipes import run_recipe
from alignment.test_dry_run import PARTS
from support.preferences import write_corpus
from support.rows import FEELINGS, SOURCE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Path:
    """A folder of all that the loop reads."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), start)


def test_each_clip_counts_once_and_as_it_is(corpus: Path) -> None:
    settings = RowClipSettings(
        rows=corpus / "rows.jsonl",
        manifests=(corpus / "manifest.jsonl",),
        facts=corpus / "facts.jsonl",
        clips=8,
        validation_clips=0,
    )
    clips, source = read_row_clips(settings)
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


def plan_of(corpus: Path, changes: list[str], output: Path) -> Any:
    recipe = corpus / "prefer.toml"
    return run_recipe(recipe, overrides=changes, output=output, dry_run=True)["plan"]


@pytest.mark.parametrize(("method", "steps"), [("dpo", ["dpo"]), ("reward+ppo", ["reward", "ppo"])])
def test_a_dry_run_plans_each_step_and_lists_nothing_that_a_round_makes(
    corpus: Path, start: Path, tmp_path: Path, method: str, steps: list[str]
) -> None:
    output = tmp_path / "run"
    changes = [f"learn.method={method}", "rounds=3"]
    plan = plan_of(corpus, changes, output)
    json.dumps(plan)
    assert not output.exists()
    assert set(plan) == {*PARTS, "steps"}
    names = [one["name"] for one in plan["loads"]]
    assert names == [str(corpus / "rows.jsonl"), str(corpus / "manifest.jsonl"), str(start)]
    assert list(plan["steps"]) == steps
    told = [plan["steps"][kind] for kind in steps]
    assert plan["parameters"] == told[-1]["parameters"]
    assert plan["memory_bytes"]["total"] == max(one["memory_bytes"]["total"] for one in told)
    assert plan["disk_bytes"]["total"] == 3 * sum(one["disk_bytes"]["total"] for one in told)
    # Twelve to train on and five of the nine to validate, four candidates of each.
    assert any("3 x 17 clips" in note and "at most 68 a round" in note for note in plan["notes"])


def test_a_dry_run_names_what_is_missing(corpus: Path, tmp_path: Path) -> None:
    changes = [f"data.rows={tmp_path / 'absent.jsonl'}", f"start={tmp_path / 'no-model'}"]
    plan = plan_of(corpus, changes, tmp_path)
    missing = {one["what"]: one["cure"] for one in plan["loads"] if not one["present"]}
    assert list(missing) == ["training rows", "model to start from"]
    assert all(missing.values())
    assert plan["parameters"] is plan["memory_bytes"] is plan["disk_bytes"] is None
    with pytest.raises(RecipeError, match=r"dpo\.toml: cannot be read"):
        plan_of(corpus, [f"learn.recipes={tmp_path}"], tmp_path / "run")
    with pytest.raises(UnknownNameError, match="did you mean 'ppo'"):
        LearnSettings(method="pppo")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["pairs.judges={llm=1.0}"], "the judge 'llm' needs a model"),
        (["pairs.judges={evidnce=1.0}"], "known are evidence, llm, human"),
        (["pairs.judges={human=1.0}", 'learn.method="ppo"'], "rewarded by evidence alone"),
    ],
)
def test_judges_that_cannot_judge_are_named_before_anything_runs(corpus, tmp_path, changes, told):
    with pytest.raises(RecipeError, match=told):
        plan_of(corpus, changes, tmp_path / "run")


def test_several_judges_are_averaged_and_people_are_waited_for(corpus: Path, tmp_path: Path):
    """People's choices beside the evidence: the run waits for them, and then goes on."""
    output = tmp_path / "run"
    changes = ["pairs.judges={evidence=1.0,human=1.0}"]
    with pytest.raises(DataError, match="nobody has chosen between its candidates yet"):
        run_recipe(corpus / "prefer.toml", overrides=changes, output=output, resume=True)
    with PreferenceStore(output / "prefer.sqlite") as store:
        for number, (_, _, candidates) in enumerate(store.groups()):
            own = [one.key for one in candidates if one.method != "gold"]
            for other in own[1:]:
                choice = Annotation(f"{number}/{other}", "somebody", own[0], other, "first")
                store.annotations.add(choice)
    summary = run_recipe(corpus / "prefer.toml", overrides=changes, output=output, resume=True)
    assert summary["rounds"] == 1
    # What was chosen is of the first round; the second has candidates of its own.
    with pytest.raises(DataError, match="nobody has chosen between its candidates yet"):
        run_recipe(
            corpus / "prefer.toml", overrides=[*changes, "rounds=2"], output=output, resume=True
        )
    with PreferenceStore(output / "prefer.sqlite") as store:
        assert set(store.judge_names()) == {"evidence", "human"}
        assert "1*(evidence" in store.pairs.latest()
        assert "1*(human" in store.pairs.latest()


def test_another_recipe_in_the_folder_of_a_run_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "prefer.sqlite").touch()
    with pytest.raises(RecipeError, match="holds a run already; go on with --resume"):
        run_recipe(corpus / "prefer.toml", overrides=["pairs.least_margin=0.9"], output=tmp_path)
    assert not (tmp_path / "recipe.json").exists()


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
    with PreferenceStore(output / "prefer.sqlite") as store:
        for row in rows:
            clip = store.clip(row.clip.id.removesuffix("#0"))
            said = [Candidate(clip.utterance, "en", text) for text in row.candidates]
            (scores,) = EvidenceJudge().judge([(clip, said)])
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
