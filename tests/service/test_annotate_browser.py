"""People judge captions in a real browser, and what they chose is learnt from."""

import io
import json
import math
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

from aligncap.alignment.examples import read_rows, read_source
from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.preference.candidates import GOLD
from aligncap.preference.examples import PreferenceRow, write_preference_rows
from aligncap.preference.pairs import read_pairs
from aligncap.preference.store import Candidate, Clip, ClipCandidates, PreferenceStore
from service.browsing import Sitting, open_browser, served, sitting
from support.preferences import PROVENANCE, train_start, write_corpus

pytestmark = pytest.mark.slow

CHOSEN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "clip0": ("low", "low"),
        "clip1": ("low", "high"),
        "clip2": ("high", "high"),
        "clip3": ("low", "low"),
        "clip4": ("tie", "tie"),
        "clip7": ("skip", "low"),  # a clip of the validation split
    }
)
"""What Anna and Bo choose of each clip: the caption whose key comes first or last, or none."""

# Of five pairs judged by both, one differs. The ten values are +1 ("low") five times, -1 three
# times and 0 twice; the pairs of unlike values that were seen are 2 of 10, and those of chance
# are 2 (5·3 + 5·2 + 3·2) = 62 of 90 (Krippendorff, 2011).
ALPHA_NOMINAL = 1 - (2 / 10) / (62 / 90)
# In ranks the values stand at 1.5, 4 and 7.5; unlike values are 6 (-1, +1), 2.5 and 3.5 apart.
ALPHA_ORDINAL = 1 - (2 * 6**2 / 10) / (2 * (15 * 6**2 + 6 * 2.5**2 + 10 * 3.5**2) / 90)

PREFERRED = {"clip0": "low", "clip2": "high", "clip3": "low", "clip7": "low"}
"""The clips of which one caption has more wins than losses."""

NAMED = """
- heading "Which caption fits the voice?" [level=1]
- progressbar "Progress"
- region "Recording and its two captions":
  - button /^1 She sounds .+/
  - button /^2 She sounds .+/
- button "0 equally good"
- button "s skip"
- button "u undo" [disabled]
- button "space replay"
- status: Listen, then choose.
"""
"""What somebody who does not see the page is told of it."""

Keyed = dict[str, dict[str, str]]
"""Clip → "low", "high" and "gold" → the caption."""


@pytest.fixture
def sounds(repository: Path, example_clips: list[Path]) -> list[Path]:
    """A recording for each clip: of people where they are there, else of a synthesiser."""
    people = repository.parent / "shared" / "data" / "speech" / "ravdess"
    found = sorted(people.glob("*.flac")) or example_clips
    return found[: len(CHOSEN)]


def fill(path: Path, sounds: list[Path]) -> Keyed:
    """A store with two captions of each clip and one of the corpus, and the clips beside it."""
    keyed: Keyed = {}
    with PreferenceStore(path) as store:
        for name, sound in zip(CHOSEN, sounds, strict=True):
            file = f"{name}{sound.suffix}"
            shutil.copy(sound, path.parent / file)
            sad, loud, gold = (
                Candidate(name, "en", f"She sounds {how} in {name.replace('clip', 'take ')}.")
                for how in ("sad and slow", "angry and loud", "happy and fast")
            )
            clip = Clip(name, file)
            store.add_findings(
                [
                    (ClipCandidates(clip, "en", (sad, loud)), PROVENANCE),
                    (ClipCandidates(clip, "en", (gold,)), GOLD),
                ]
            )
            low, high = sorted((sad, loud), key=lambda one: one.key)
            keyed[name] = {"low": low.text, "high": high.text, "gold": gold.text}
    return keyed


def shown(person: Sitting, keyed: Keyed) -> tuple[str, list[str]]:
    """The clip before a person, and which of its captions stand left and right."""
    captions = person.captions()
    (clip,) = [name for name, texts in keyed.items() if captions[0] in texts.values()]
    return clip, [side for one in captions for side, text in keyed[clip].items() if text == one]


def side_of(wish: str, order: list[str]) -> str:
    """What the page calls a choice."""
    return ("first", "second")[order.index(wish)] if wish in order else wish


def hears_the_clip(person: Sitting, clip: str, folder: Path) -> None:
    (file,) = folder.glob(f"{clip}.*")
    assert person.hears() == pytest.approx(soundfile.info(file).duration, abs=0.05)


def sits_with_keys(person: Sitting, keyed: Keyed, folder: Path) -> list[list[str]]:
    """Anna: a choice taken back, a reload, a choice that cannot be sent and a reload; returns the
    orders in which captions stood."""
    page, orders = person.page, []
    for done in range(len(CHOSEN)):
        person.has_done(done)
        clip, order = shown(person, keyed)
        orders.append(order)
        # Whose they are is not said: nothing is on the page but the two, in their places.
        assert sorted(order) == ["high", "low"]
        assert not any(word in page.locator("main").inner_html() for word in ("beam", "fake", clip))
        hears_the_clip(person, clip, folder)
        wish = side_of(CHOSEN[clip][0], order)
        if done == 1:
            person.press("second" if wish == "first" else "first")
            person.has_done(2)
            page.keyboard.press("u")
            person.has_done(1)
            assert shown(person, keyed) == (clip, order)
        if done == 3:
            page.reload()
            person.has_done(3)
            assert shown(person, keyed) == (clip, order)
            hears_the_clip(person, clip, folder)
        if done == 4:
            assert person.complaints == []
            page.route("**/api/choice", lambda route: route.abort())
            person.press(wish)
            page.get_by_text("Not saved yet: the server does not answer").wait_for()
            page.reload()
            page.get_by_text("Not saved yet: the server does not answer").wait_for()
            page.unroute("**/api/choice")
            person.has_done(5)
            # The browser's own words about each try.
            assert all("net::ERR_FAILED" in one for one in person.complaints)
            person.complaints.clear()
            continue
        person.press(wish)
    person.has_done(len(CHOSEN))
    return orders


def sits_with_mouse(person: Sitting, keyed: Keyed, folder: Path) -> list[list[str]]:
    """Bo: plays again, and takes the last choice back when all is done; returns the orders."""
    page, orders = person.page, []
    for done in range(len(CHOSEN)):
        person.has_done(done)
        clip, order = shown(person, keyed)
        orders.append(order)
        hears_the_clip(person, clip, folder)
        if done == 0:
            page.locator("#sound").evaluate("sound => sound.pause()")
            page.get_by_role("button", name="replay").click()
            hears_the_clip(person, clip, folder)
        if done < len(CHOSEN) - 1:
            person.click(side_of(CHOSEN[clip][1], order))
    person.click("tie")
    finished(person)
    page.get_by_role("button", name="undo").click()
    person.has_done(len(CHOSEN) - 1)
    assert shown(person, keyed) == (clip, order)
    person.click(side_of(CHOSEN[clip][1], order))
    person.has_done(len(CHOSEN))
    return orders


def finished(person: Sitting) -> None:
    """The last screen: thanks, and nothing that could still be pressed but undo."""
    person.has_done(len(CHOSEN))
    person.page.get_by_text("Nothing is left for you to judge").wait_for()
    buttons = person.page.locator("#actions button:visible, #work button:visible")
    assert [one.inner_text().split()[-1] for one in buttons.all()] == ["undo"]
    assert person.sound("paused")
    assert person.complaints == []


def aligncap(*arguments: str | Path) -> str:
    """What a command prints that ends well."""
    out, err = io.StringIO(), io.StringIO()
    code = main([str(one) for one in arguments], console=Console(stdout=out, stderr=err))
    assert code == 0, err.getvalue()
    return out.getvalue()


def trains_with_aligncap(folder: Path, exported: Path) -> None:
    """DPO of a few steps from the exported pairs, read back, and the codes of their clips."""
    imported, again = folder / "imported.sqlite", folder / "again.jsonl"
    aligncap("prefer", "import", imported, exported)
    aligncap("prefer", "export", imported, again, "--format", "trl")
    assert again.read_bytes() == exported.read_bytes()
    (folder / "start").mkdir()
    start = train_start(folder / "start")
    write_corpus(folder, start)
    heard = {row.id: row for row in read_rows(folder / "rows.jsonl")}
    rows = [
        PreferenceRow(
            clip=replace(
                heard[f"{pair.utterance}#0"],
                captions={"en": (pair.chosen.text, pair.rejected.text)},
            ),
            pairs=((0, 1),),
        )
        for pair, _ in read_pairs(exported)
    ]
    write_preference_rows(folder / "judged.jsonl", read_source(folder / "rows.jsonl"), rows)
    summary = json.loads(
        aligncap(
            *("train", folder / "dpo.toml", "--output", folder / "run"),
            *("--set", f'data.rows=["{folder / "judged.jsonl"}"]'),
            *("--set", f'model.start="{start}"'),
        )
    )
    assert summary["step"] == 4
    assert summary["loss"] < math.log(2)  # what it is where nothing has been learnt
    assert Path(summary["model"]).is_dir()


def trains_with_trl(folder: Path, exported: Path) -> None:
    """trl reads the file as it is and trains on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl's and datasets' own, many
        from datasets import Dataset, disable_progress_bars
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        from trl import DPOConfig, DPOTrainer

        disable_progress_bars()
        data = Dataset.from_json(str(exported), cache_dir=str(folder / "cache"))
        words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
        for word in exported.read_text("utf-8").split():
            words.setdefault(word.strip('",.'), len(words))
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=len(words), intermediate_size=16, **shape)
        trainer = DPOTrainer(
            model=LlamaForCausalLM(config),
            args=DPOConfig(
                output_dir=str(folder / "trl"),
                max_steps=2,
                precompute_ref_log_probs=True,
                per_device_train_batch_size=len(PREFERRED),
                learning_rate=1e-2,
                use_cpu=True,
                bf16=False,
                report_to=[],
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
            ),
            train_dataset=data,
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>"
            ),
        )
        trainer.train()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    # At first the policy is its reference.
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3)
    assert losses[1] < losses[0]


def test_two_people_judge_agree_and_are_learnt_from(tmp_path: Path, sounds: list[Path]) -> None:
    store = tmp_path / "s.sqlite"
    keyed = fill(store, sounds)
    with open_browser() as browser, served(store, tmp_path, "--overlap", "1") as address:
        with sitting(browser) as anna:
            anna.sign_in(address, "Anna")
            orders = sits_with_keys(anna, keyed, tmp_path)
            finished(anna)
        with sitting(browser) as bo:
            bo.sign_in(address, "Bo")
            others = sits_with_mouse(bo, keyed, tmp_path)
            finished(bo)
    for seen in (orders, others):
        assert {tuple(order) for order in seen} == {("low", "high"), ("high", "low")}

    assert "human|people:2|choices:12|" in aligncap("prefer", "judge", store, "--judge", "human")
    people = json.loads(aligncap("prefer", "agreement", store, "--format", "jsonl"))["people"]
    assert people == {
        "annotators": 2,
        "choices": 12,
        "shared_pairs": 5,
        "alpha_ordinal": pytest.approx(ALPHA_ORDINAL, abs=5e-5),
        "alpha_nominal": pytest.approx(ALPHA_NOMINAL, abs=5e-5),
    }
    made = aligncap("prefer", "pairs", store, "--judge", "human")
    assert made == f"{store}: 4 pairs of 4 clips, of 6\n"
    exported = tmp_path / "pairs.jsonl"
    aligncap("prefer", "export", store, exported, "--format", "trl")
    rows = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
    assert {row["chosen"]: row["rejected"] for row in rows} == {
        keyed[clip][side]: keyed[clip]["high" if side == "low" else "low"]
        for clip, side in PREFERRED.items()
    }

    trains_with_aligncap(tmp_path, exported)
    if find_spec("trl"):
        trains_with_trl(tmp_path, exported)


def test_a_narrow_screen_keyboard_focus_a_broken_recording_and_another_person(
    tmp_path: Path, sounds: list[Path]
) -> None:
    store = tmp_path / "s.sqlite"
    keyed = fill(store, sounds)
    (broken,) = tmp_path.glob("clip2.*")
    broken.write_bytes(b"no sound")
    narrow = {"width": 320, "height": 700}
    with (
        open_browser() as browser,
        served(store, tmp_path, "--overlap", "1") as address,
        sitting(browser, viewport=narrow) as person,
    ):
        from playwright.sync_api import expect

        page, tie = person.page, person.button("tie")
        person.sign_in(address, "Cy")
        person.has_done(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= narrow["width"]
        expect(page.locator("main")).to_match_aria_snapshot(NAMED)
        told = page.get_by_text("This recording cannot be played here")
        for done in range(len(CHOSEN)):
            clip, _ = shown(person, keyed)
            expect(told).to_be_visible(visible=clip == "clip2")
            expect(tie).to_be_enabled()
            tie.focus()
            page.keyboard.press("Enter")
            person.has_done(done + 1)
            if done + 1 < len(CHOSEN):
                expect(tie).to_be_focused()  # though it could not be used for a moment
        page.get_by_role("button", name="not you?").click()
        expect(page.get_by_label("Your name")).to_have_value("")
        page.keyboard.type("Di")
        page.keyboard.press("Enter")
        person.has_done(0)
        page.reload()
        expect(page.locator("#who")).to_contain_text("Di · 0 done, 6 left")
        assert person.complaints == []
    with PreferenceStore(store) as opened:
        assert {(one.annotator, one.choice) for one in opened.annotations.all()} == {("Cy", "tie")}
