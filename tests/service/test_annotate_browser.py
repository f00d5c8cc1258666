"""People judge captions in a real browser, and what they chose is learnt from."""

import io
import json
import math
import re
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.preference.candidates import GOLD
from aligncap.preference.store import Candidate, Clip, ClipCandidates, PreferenceStore
from support.browser import LONGEST_WAIT_MS, open_browser, opened
from support.killer import finish, start
from support.preferences import PROVENANCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow

KEYS = {"first": "1", "second": "2", "tie": "0", "skip": "s"}


@contextmanager
def served(store: Path, audio: Path, *options: str) -> Iterator[str]:
    """The address of `aligncap prefer annotate`, which is stopped as a person would."""
    command = ["-m", "aligncap", "prefer", "annotate", store, "--audio-root", audio, "--port", 0]
    run = start(*command, *options)
    assert run.stdout
    said = run.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", said)
    assert address, said or run.communicate()[1]
    yield address[0]
    run.send_signal(signal.SIGINT)
    finish(run)


@dataclass(frozen=True)
class Sitting:
    """A person before the page."""

    page: "Page"
    complaints: list[str]
    """What the browser's console has called an error."""

    def sign_in(self, address: str, name: str) -> None:
        self.page.goto(address)
        self.page.get_by_label("Your name").fill(name)
        self.page.keyboard.press("Enter")

    def captions(self) -> tuple[str, str]:
        """What stands on the left and on the right."""
        first, second = (
            self.page.locator(f"#{side} span").inner_text() for side in ("first", "second")
        )
        return first, second

    def has_done(self, done: int) -> None:
        """Waits until the page says so, and can be used again."""
        from playwright.sync_api import expect

        expect(self.page.locator("#who")).to_contain_text(f" {done} done,")
        self.until(lambda: not self.page.evaluate("busy"))

    def press(self, choice: str) -> None:
        self.page.keyboard.press(KEYS[choice])

    def click(self, choice: str) -> None:
        self.button(choice).click()

    def button(self, choice: str) -> "Locator":
        return self.page.locator(f"button[data-choice={choice}]")

    def sound(self, name: str) -> float:
        """A number or truth that the audio element tells of itself."""
        found = self.page.locator("#sound").evaluate(f"sound => sound.{name}")
        return float(found or 0)

    def hears(self) -> float:
        """Waits until the recording is being played; returns its length in seconds."""
        begun_s = self.sound("currentTime")
        self.until(lambda: not self.sound("paused") and self.sound("currentTime") > begun_s)
        assert self.sound("readyState") >= 2  # there is sound at the place that is played
        return self.sound("duration")

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits for what cannot be waited for inside of the page: its policy forbids eval."""
        waited_ms = 0
        while not holds():
            assert waited_ms < LONGEST_WAIT_MS, "waited in vain"
            self.page.wait_for_timeout(20)
            waited_ms += 20


@contextmanager
def sitting(browser: "Browser", **options: object) -> Iterator[Sitting]:
    """A browser of one's own that remembers nothing, and what its console complains of."""
    with opened(browser, **options) as (page, complaints):
        yield Sitting(page, complaints)


CHOSEN = {
    "clip0": ("low", "low"),
    "clip1": ("low", "high"),
    "clip2": ("high", "high"),
    "clip3": ("low", "low"),
    "clip4": ("tie", "tie"),
    "clip5": ("skip", "low"),
}
"""What Anna and Bo choose of each clip: the caption whose key comes first or last, or none."""

# Of five pairs judged by both, one differs. The ten values are +1 ("low") five times, -1 three
# times and 0 twice; the pairs of unlike values that were seen are 2 of 10, and those of chance
# are 2 (5·3 + 5·2 + 3·2) = 62 of 90 (Krippendorff, 2011).
ALPHA_NOMINAL = 1 - (2 / 10) / (62 / 90)
# In ranks the values stand at 1.5, 4 and 7.5; unlike values are 6 (-1, +1), 2.5 and 3.5 apart.
ALPHA_ORDINAL = 1 - (2 * 6**2 / 10) / (2 * (15 * 6**2 + 6 * 2.5**2 + 10 * 3.5**2) / 90)

PREFERRED = {"clip0": "low", "clip2": "high", "clip3": "low", "clip5": "low"}
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
            for found, source in (((sad, loud), PROVENANCE), ((gold,), GOLD)):
                store.add_findings([(ClipCandidates(clip, "en", found), source)])
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
        quick = {"max_steps": 2, "learning_rate": 1e-2, "precompute_ref_log_probs": True}
        quick |= {"per_device_train_batch_size": len(PREFERRED), "use_cpu": True, "bf16": False}
        quick |= {"report_to": [], "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
        quick |= {"output_dir": str(folder / "trl")}
        trainer = DPOTrainer(
            model=LlamaForCausalLM(config),
            args=DPOConfig(**quick),
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
