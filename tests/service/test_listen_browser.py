"""The page of `aligncap serve` in a real browser, with real files."""

import json
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import soundfile
import srt

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

import aligncap
from aligncap.audio import load
from aligncap.values import RATE_HZ
from support.browser import open_browser, opened
from support.served import Teller, ready, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

CLIPS = Path(__file__).resolve().parents[2] / "examples" / "clips"
CLIP = CLIPS / "woman-slow-soft.ogg"
TOKEN = "s3cret"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def captioner() -> aligncap.Captioner:
    return aligncap.load("mini")


@pytest.fixture(scope="module")
def expected(captioner: aligncap.Captioner) -> dict[str, aligncap.Caption]:
    return {language: captioner.caption(CLIP, language=language) for language in ("en", "zh")}


@pytest.fixture(scope="module")
def address(captioner: aligncap.Captioner) -> Iterator[str]:
    """A server that asks for a token."""
    with served(lambda: captioner, token=TOKEN) as found:
        yield ready(found)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """A browser whose microphone hears the clip again and again."""
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, *soundfile.read(CLIP))
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with open_browser(*flags, f"--use-file-for-fake-audio-capture={heard}") as found:
        yield found


def choose(page: "Page", address: str, file: Path) -> None:
    """Gives the page a file, and the token that it asks for."""
    page.goto(f"{address}/")
    page.set_input_files("#file", file)
    page.locator("#secret").fill(TOKEN)
    page.keyboard.press("Enter")
    page.locator("#status", has_text=re.compile("^(Captioned|描述完毕)$")).wait_for()


def starts(page: "Page", act: Callable[[], None]) -> None:
    """Does something, which must start the sound; on a slow machine it may be over at once."""
    page.evaluate("window.played = false")
    page.evaluate("sound.addEventListener('play', () => { window.played = true; })")
    act()
    while not page.evaluate("window.played"):
        page.wait_for_timeout(20)


def plays(page: "Page") -> bool:
    return page.locator("#sound").evaluate("sound => !sound.paused")


def second(page: "Page") -> float:
    return page.locator("#sound").evaluate("sound => sound.currentTime")


def until_paused(page: "Page") -> None:
    while plays(page):
        page.wait_for_timeout(20)


def only_complaint_is_the_token(complaints: list[str]) -> None:
    assert all("401" in one for one in complaints), complaints


def test_a_file_is_drawn_captioned_played_and_taken_away(
    browser: "Browser", address: str, expected: dict[str, aligncap.Caption]
) -> None:
    caption = expected["en"]
    with opened(browser, locale="en-GB") as (page, complaints):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        choose(page, address, CLIP)
        # Clues that the sentence does not hold word for word stand after it.
        assert page.locator("#list .text").inner_text().split(" · ")[0] == caption.text
        for evidence in caption.evidence:
            word = re.sub("[- ]", "[- ]", evidence.clue.word)
            clue = page.locator(".clue", has_text=re.compile(f"^{word}$", re.IGNORECASE)).first
            clue.hover()
            tip = page.locator("#tip").inner_text()
            assert evidence.verdict.value.split()[0] in tip
            assert evidence.measurement in tip
            kind = {"supported": "supported", "contradicted": "contradicted"}
            assert kind.get(evidence.verdict.value, "untold") in clue.get_attribute("class")
        likeliest = max(caption.emotion, key=lambda name: caption.emotion[name])
        assert likeliest in page.locator("#emotions").inner_text()
        for lane in ("wave", "pitch", "loud"):
            drawn = page.locator(f"#{lane} path").get_attribute("d")
            assert len(drawn) > 500, lane
            assert "NaN" not in drawn, lane

        starts(page, page.locator("#said button").click)
        while second(page) == 0.0:
            page.wait_for_timeout(20)
        page.keyboard.press("Escape")
        page.locator("#play").click()
        until_paused(page)

        with page.expect_download() as download:
            page.get_by_role("button", name="SRT").click()
        assert download.value.suggested_filename == "woman-slow-soft.srt"
        assert caption.text in Path(download.value.path()).read_text("utf-8")
        with page.expect_download() as download:
            page.get_by_role("button", name="JSON").click()
        found = json.loads(Path(download.value.path()).read_text("utf-8"))
        assert found["segments"][0]["caption"] == caption.text
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)
        only_complaint_is_the_token(complaints)


def test_by_keyboard_on_a_phone_in_chinese(
    browser: "Browser", address: str, expected: dict[str, aligncap.Caption]
) -> None:
    with opened(browser, locale="zh-CN", color_scheme="dark", **PHONE) as (page, complaints):
        choose(page, address, CLIP)
        assert page.locator("html").get_attribute("lang") == "zh"
        assert page.locator("#list .text").inner_text().split(" · ")[0] == expected["zh"].text
        assert page.get_by_role("button", name="播放").first.is_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390
        page.locator("#lanes").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert second(page) == pytest.approx(2.0, abs=0.01)
        assert page.locator("#lanes").get_attribute("aria-valuenow") == "2.0"
        page.keyboard.press("Home")
        assert second(page) == 0.0
        starts(page, partial(page.keyboard.press, " "))
        page.keyboard.press(" ")
        until_paused(page)
        page.locator(".clue").first.focus()
        assert page.locator("#tip").is_visible()
        page.locator("#in").click()
        assert page.locator("#lanes").evaluate("one => one.clientWidth") > 600
        page.get_by_role("button", name="English").click()
        page.get_by_text(expected["en"].text).last.wait_for()
        only_complaint_is_the_token(complaints)


def test_what_cannot_be_captioned_is_said_and_the_browser_helps_with_what_it_reads(
    browser: "Browser", address: str, tmp_path: Path
) -> None:
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, np.zeros(16000), 16000)
    text = tmp_path / "text.wav"
    text.write_text("no sound at all")
    # Libsndfile refuses a wav of a length that does not end; a browser reads what is there.
    samples, rate = soundfile.read(CLIP, dtype="int16")
    riff = tmp_path / "streamed.wav"
    soundfile.write(riff, samples, rate, subtype="PCM_16")
    cut = riff.read_bytes()
    riff.write_bytes(cut[:4] + struct.pack("<I", 2 * len(cut)) + cut[8:])
    with opened(browser, locale="en") as (page, _):
        choose(page, address, CLIP)
        for file, words in ((noise, "no speech"), (text, "text, no sound")):
            page.set_input_files("#file", file)
            page.locator("#status.warn", has_text=words).wait_for()
            assert page.locator("#work").is_hidden()
        page.set_input_files("#file", riff)
        page.locator("#list li").first.wait_for()
        assert page.locator("#name").inner_text() == "streamed.wav"


def test_what_the_microphone_hears_is_captioned(browser: "Browser", address: str) -> None:
    with opened(browser, locale="en", permissions=["microphone"]) as (page, _):
        page.goto(f"{address}/")
        page.locator("#record").click()
        page.locator("#status", has_text="Recording … 0:03").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.locator("#secret").fill(TOKEN)
        page.keyboard.press("Enter")
        page.locator("#list .text").wait_for()
        assert page.locator("#name").inner_text().startswith("Record ")
        assert 2.5 < page.evaluate("shown().duration_s") < 20


@pytest.fixture(scope="module")
def call(speech_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sentences of real people with a pause between."""
    pause = np.zeros(2 * RATE_HZ, np.float32)
    parts = [np.zeros(RATE_HZ, np.float32)]
    for corpus in ("emodb", "ravdess"):
        rows = (speech_data / corpus / "manifest.jsonl").read_text("utf-8").splitlines()
        parts += [load(speech_data / corpus / json.loads(rows[0])["file"]).samples, pause]
    file = tmp_path_factory.mktemp("calls") / "call.wav"
    soundfile.write(file, np.concatenate(parts), RATE_HZ)
    return file


@pytest.mark.parametrize("size", [{"viewport": {"width": 1280, "height": 900}}, PHONE])
def test_captions_lie_along_the_time_axis(
    browser: "Browser",
    address: str,
    captioner: aligncap.Captioner,
    call: Path,
    size: dict[str, Any],
) -> None:
    offline = list(captioner.segments(call))
    spoken = [one for one in offline if one.kind == "speech"]
    length_s = soundfile.info(call).duration
    assert len(spoken) == 2
    with opened(browser, locale="en", **size) as (page, complaints):
        choose(page, address, call)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["viewport"]["width"]
        shown = [one.inner_text().split(" · ")[0] for one in page.locator("#list .text").all()]
        assert shown == [one.text for one in spoken]
        assert page.locator("#list li").count() == len(offline)
        assert "silence" in page.locator("#list li").first.inner_text()
        lane = page.locator("#said").bounding_box()
        assert lane is not None
        blocks = page.locator("#said button:not(.silent)")
        for one, block in zip(spoken, blocks.all(), strict=True):
            box = block.bounding_box()
            assert box is not None
            share = one.start_s / length_s
            assert (box["x"] - lane["x"]) / lane["width"] == pytest.approx(share, abs=0.01)
            starts(page, block.click)
            while second(page) <= one.start_s:
                page.wait_for_timeout(20)
            page.evaluate("sound.pause()")
            page.evaluate("second => { sound.currentTime = second; move(); }", one.start_s + 0.1)
            assert page.locator("#list li.now .text").inner_text().startswith(one.text[:9])
        # Emotions are drawn where somebody speaks.
        drawn = page.locator("#feel path").first.get_attribute("d")
        begins = [float(one) for one in re.findall(r"M([\d.]+),", drawn or "")]
        assert begins == pytest.approx([one.start_s / length_s for one in spoken], abs=1e-3)

        with page.expect_download() as download:
            page.get_by_role("button", name="SRT").click()
        cues = list(srt.parse(Path(download.value.path()).read_text("utf-8"), ignore_errors=False))
        assert [one.content for one in cues] == [one.text for one in spoken]
        assert [one.start.total_seconds() for one in cues] == [
            pytest.approx(one.start_s, abs=1e-3) for one in spoken
        ]
        with page.expect_download() as download:
            page.get_by_role("button", name="JSON").click()
        found = json.loads(Path(download.value.path()).read_text("utf-8"))
        assert found["segments"] == [one.to_dict() for one in offline]
        only_complaint_is_the_token(complaints)


@pytest.mark.parametrize("size", [{"viewport": {"width": 1280, "height": 900}}, PHONE])
def test_captions_appear_as_they_are_found_and_can_be_stopped_by_keyboard(
    browser: "Browser", tmp_path: Path, size: dict[str, Any]
) -> None:
    pause = np.zeros(RATE_HZ, np.float32)
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([load(CLIP).samples, pause] * 12), RATE_HZ)
    length_s, teller = soundfile.info(long).duration, Teller()
    with (
        served(lambda: teller, batch_wait_s=0.0) as address,
        teller.let_all(),
        opened(browser, locale="en", **size) as (page, complaints),
    ):
        page.goto(f"{ready(address)}/")
        page.set_input_files("#file", long)
        # The waveform is there before anything is captioned.
        page.locator("#wave path[d^='M0,0L']").wait_for(state="attached")
        assert page.locator("#list li").count() == 0
        assert page.locator("#along").get_attribute("value") is None
        for number in (1, 2):
            teller.let.release()
            page.locator("#list .text", has_text=f"Caption {number}.0.").wait_for()
            share = last_s = -1.0
            while share != pytest.approx(last_s / length_s, abs=1e-3):  # drawn a little later
                share, last_s = page.evaluate("[at('along').value, shown().segments.at(-1).end_s]")
            assert 0 < share < 0.99
            assert page.locator("#rest").is_visible()
        page.locator("#said button:not(.silent)").first.focus()
        starts(page, partial(page.keyboard.press, "Enter"))  # it plays meanwhile
        page.get_by_role("button", name="Pause").click()
        page.locator("#stop").focus()
        page.keyboard.press("Enter")
        page.locator("#status", has_text="Stopped").wait_for()
        assert page.locator("#working").is_hidden()
        assert page.evaluate("document.activeElement.id") == "play"
        while "aligncap_along 0.0" not in httpx.get(f"{address}/metrics").text:
            page.wait_for_timeout(20)  # the server goes on with others
        kept = page.locator("#list .text").count()
        with page.expect_download() as download:
            page.get_by_role("button", name="SRT").click()
        cues = list(srt.parse(Path(download.value.path()).read_text("utf-8"), ignore_errors=False))
        assert 2 <= len(cues) == kept < 12
        assert page.evaluate("document.documentElement.scrollWidth") <= size["viewport"]["width"]
        # What was stopped can be begun again, and comes to its end.
        teller.let.release(99)
        page.get_by_role("button", name="English").click()
        page.locator("#status", has_text="Captioned").wait_for()
        blocks = page.locator("#said button:not(.silent)")
        assert page.locator("#list .text").count() == blocks.count() == 12
        assert page.locator("#rest").is_hidden()
        assert complaints == []


def test_what_cannot_be_begun_is_asked_for_again(browser: "Browser") -> None:
    teller = Teller()
    with (
        served(lambda: teller, waiting=1, batch_wait_s=0.0) as address,
        ThreadPoolExecutor(2) as pool,
        teller.let_all(),
        opened(browser, locale="en") as (page, _),
    ):
        ready(address)
        file = {"file": CLIP.read_bytes()}
        ask = partial(httpx.post, f"{address}/v1/captions", files=file, timeout=600)
        for waiting in ("0.0", "1.0"):  # one at work, one that fills the queue
            pool.submit(ask)
            while (
                not teller.batches
                or f"aligncap_waiting {waiting}" not in httpx.get(f"{address}/metrics").text
            ):
                page.wait_for_timeout(20)
        page.goto(f"{address}/")
        page.set_input_files("#file", CLIP)
        page.locator("#status", has_text="Many wait").wait_for()
        teller.let.release(99)
        page.locator("#status", has_text="Captioned").wait_for()
        assert page.locator("#list .text").count() == 1
