"""Splits 8:1:1: nobody on two sides, the same whatever else is there, and leaks counted."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.data.manifest import Utterance, read_manifest, write_manifest
from aligncap.data.splits import (
    FILES,
    Seen,
    Split,
    count_leaks,
    empty_parts,
    leak_faults,
    sentence_of,
    split_manifest,
)


def clip(number: int, *, speakers: int = 40, text: str | None = None) -> Utterance:
    return Utterance(
        id=f"u{number}",
        path=Path(f"u{number}.wav"),
        speaker=f"s{number % speakers}",
        text=text or f"Sentence {number % 50}!",
        sha256=f"{number:064x}",
    )


def split(
    tmp_path: Path, clips: Iterable[Utterance], by: str, salt: str = ""
) -> tuple[dict[str, list[Utterance]], Seen]:
    manifest = tmp_path / "m.jsonl"
    write_manifest(manifest, clips)
    seen = Seen(tmp_path)
    split_manifest(manifest, tmp_path / "parts", Split(by, salt), seen)
    return {name: list(read_manifest(tmp_path / "parts" / name)) for name in FILES}, seen


def test_the_shares_are_eight_one_one(tmp_path: Path) -> None:
    parts, seen = split(tmp_path, map(clip, range(2000)), "random")
    with seen:
        shares = [len(parts[name]) / 2000 for name in FILES]
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
        leaks = count_leaks(seen)
    # 50 clips of each speaker, 40 of each sentence: all of them lie in several parts.
    assert (leaks.speakers, leaks.sentences, leaks.sounds) == (40, 50, 0)


def test_speakers_are_kept_apart(tmp_path: Path) -> None:
    parts, seen = split(tmp_path, map(clip, range(2000)), "speaker")
    with seen:
        sides = [{one.speaker for one in parts[name]} for name in FILES]
        assert sides[0] | sides[1] | sides[2] == {f"s{number}" for number in range(40)}
        assert sum(map(len, sides)) == 40
        assert count_leaks(seen).speakers == 0
        assert list(leak_faults(seen, Split("speaker"))) == []


def test_a_grown_corpus_moves_nobody(tmp_path: Path) -> None:
    few, seen = split(tmp_path, map(clip, range(0, 500, 3)), "random")
    with seen:
        pass
    many, seen = split(tmp_path, map(clip, range(500)), "random")
    with seen:
        pass
    for name in FILES:
        assert {one.id for one in few[name]} <= {one.id for one in many[name]}


def test_a_sound_on_two_sides_is_a_fault(tmp_path: Path) -> None:
    clips = [clip(number) for number in range(100)]
    twins = [Utterance(id=f"copy{c.id}", path=c.path, sha256=c.sha256) for c in clips]
    _, seen = split(tmp_path, [*clips, *twins], "random")
    with seen:
        leaks, faults = count_leaks(seen), list(leak_faults(seen, Split("random")))
    assert leaks.sounds == len(faults) > 10
    assert all(" is in " in fault.message for fault in faults)


def test_an_empty_part_comes_with_a_salt_that_fills_it(tmp_path: Path) -> None:
    clips = [clip(number, speakers=6) for number in range(60)]
    salt = next(str(n) for n in range(99) if not all(parts_of(clips, str(n)).values()))
    parts, seen = split(tmp_path, clips, "speaker", salt)
    with seen:
        counts = {name: len(found) for name, found in parts.items()}
        faults = list(empty_parts(seen, counts, Split("speaker", salt)))
    assert len(faults) == list(counts.values()).count(0) > 0
    better = faults[0].message.split("--salt ")[1].split(",")[0]
    assert all(parts_of(clips, better).values())


def parts_of(clips: Iterable[Utterance], salt: str) -> dict[str, int]:
    parts = [Split("speaker", salt).part_of(one) for one in clips]
    return {name: parts.count(name) for name in ("train", "validation", "test")}


def test_two_speakers_cannot_be_parted(tmp_path: Path) -> None:
    parts, seen = split(tmp_path, [clip(n, speakers=2) for n in range(60)], "speaker")
    with seen:
        counts = {name: len(found) for name, found in parts.items()}
        faults = list(empty_parts(seen, counts, Split("speaker")))
    assert "2 speakers cannot be split by speaker" in faults[0].message


def test_secap_is_split_by_its_sources() -> None:
    def part(clip_id: str) -> str:
        return Split("speaker").part_of(Utterance(id=clip_id, path=Path("x"), corpus="secap"))

    books = [f"tx_emulate_00_{book:03}" for book in range(60)]
    assert {part(f"{book}_0001_000001") for book in books} == {"train", "validation", "test"}
    for book in books:
        assert part(f"{book}_0001_000001") == part(f"{book}_0099_000123")


@given(st.text(alphabet="abc ,.!?'", min_size=1))
def test_a_sentence_is_its_letters(text: str) -> None:
    spoken = [Utterance(id="u", path=Path("u"), text=form) for form in (text, text.upper() + "!")]
    assert sentence_of(spoken[0]) == sentence_of(spoken[1])


def test_a_code_goes_before_the_words() -> None:
    one = Utterance(id="u", path=Path("u"), corpus="emodb", sentence="a01", text="Der Lappen")
    assert sentence_of(one) == "emodb/a01"
