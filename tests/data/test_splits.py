"""Splits: nobody is on two sides or ever changes sides, and leaks are counted."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.data.manifest import Utterance, read_manifest, write_manifest
from aligncap.data.splits import (
    FILES,
    TEST_SPEAKERS,
    VALIDATION_SPEAKERS,
    Seen,
    Shared,
    Split,
    count_leaks,
    empty_parts,
    leak_faults,
    secap_source,
    sentence_of,
    split_by_hash,
    split_manifest,
    split_of,
    validation_split,
)
from aligncap.errors import DataError

CORPORA = ("ased", "emodb", "nemo", "ravdess", "secap")
"""Those whose validation speakers are fixed."""


def hashed(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def golden(utterances: list[Utterance]) -> str:
    return hashed("\n".join(sorted(f"{u.corpus}/{u.id}" for u in utterances)), 16)


def source(utterance: Utterance) -> str:
    return utterance.speaker or secap_source(utterance.id)


def test_the_validation_set_is_the_one_that_was_agreed(speech_data: Path) -> None:
    every = [u for name in CORPORA for u in read_manifest(speech_data / name / "manifest.jsonl")]
    train, validation = validation_split(every)
    test = [u for u in every if split_of(u) == "test"]
    assert (golden(train), golden(validation)) == ("abfa7a73f870eca6", "a500d3cd18c11468")
    assert golden(test) == "10a2a502802c53c0"
    assert len(train) + len(validation) + len(test) == len(every) == 7_646
    assert {u.speaker for u in test}.isdisjoint(u.speaker for u in (*train, *validation))
    assert {source(u) for u in train}.isdisjoint(source(u) for u in validation)
    voices = {(u.corpus, u.speaker): u.gender for u in validation if u.speaker != "ased_09"}
    by_corpus = Counter((corpus, gender) for (corpus, _), gender in voices.items())
    assert by_corpus["ravdess", "female"] == by_corpus["ravdess", "male"] == 2
    assert by_corpus["emodb", "female"] == by_corpus["emodb", "male"] == 1
    assert by_corpus["nemo", "female"] + by_corpus["nemo", "male"] == 1
    speakers = sorted({u.speaker or "" for u in every if u.corpus == "ased"})
    assert {u.speaker for u in validation if u.corpus == "ased"} == set(speakers[7::8])
    assert 0.09 <= [u.corpus for u in validation].count("secap") / 472 <= 0.11
    # A part of a corpus is split like the whole.
    _, of_part = validation_split(reversed(every[::3]))
    assert {u.id for u in of_part} == {u.id for u in every[::3]} & {u.id for u in validation}


def test_clips_of_one_book_and_of_one_voice_share_a_source() -> None:
    for one, other in (
        ("tx_emulate_00_110_0002_000039", "tx_emulate_00_110_0004_000001"),
        ("tx_emotion_00303000130", "tx_emotion_00301000019"),
    ):
        assert secap_source(one) == secap_source(other)
    assert secap_source("tx_emotion_00303000130") != secap_source("tx_emotion_00203000019")
    with pytest.raises(DataError, match="u1: not a secap id"):
        secap_source("u1")


def test_who_is_kept_back_is_fixed() -> None:
    names = [f"ravdess_{n:02}" for n in (5, 10, 15, 20)] + ["emodb_10", "emodb_14", "nemo_IC0"]
    names += ["emovo_f1", "uem_es_2", "uem_es_8", "turev_db_1358"]
    assert set(names) | {f"ased_{n:02}" for n in range(9, 64, 9)} == VALIDATION_SPEAKERS
    sources = [f"tx_emulate_00_{n:03}" for n in range(200)]
    wanted = {x for x in sources if int(hashed(f"validation\0{x}", 12), 16) < 0.29 * 2**48}
    # Studio voices are trained on, wherever their hash falls.
    sources += ["tx_xiao", *(f"tx_emotion_{n:03}" for n in range(1, 31))]
    clips = [Utterance(id=f"{one}_1", path=Path("x"), corpus="secap") for one in sources]
    _, kept = validation_split(clips)
    assert {secap_source(one.id) for one in kept} == wanted


def test_nobody_is_of_two_parts_and_test_speakers_are_of_neither_other() -> None:
    assert not VALIDATION_SPEAKERS & TEST_SPEAKERS
    people = [*sorted(VALIDATION_SPEAKERS | TEST_SPEAKERS), "ravdess_01"]
    clips = [Utterance(id=one, path=Path("x"), speaker=one) for one in people]
    train, validation = validation_split(clips)
    assert [one.id for one in train] == ["ravdess_01"]
    assert {one.id for one in validation} == VALIDATION_SPEAKERS
    assert {one.id for one in clips if split_of(one) == "test"} == TEST_SPEAKERS


@pytest.mark.parametrize(
    ("corpus", "validation", "test"), [("iesc", 10, 10), ("nonverbal", 15, 15)]
)
def test_speakers_of_large_corpora_are_kept_back_by_their_names(corpus, validation, test) -> None:
    clips = [
        Utterance(id=f"{n}", path=Path("x"), corpus=corpus, speaker=f"{corpus}_{n}")
        for n in range(4000)
    ]
    parts = Counter(map(split_of, clips))
    assert parts["validation"] / 40 == pytest.approx(validation, abs=1.7)
    assert parts["test"] / 40 == pytest.approx(test, abs=1.7)


@given(st.text(min_size=1))
def test_unknown_speakers_are_trained_on(name: str) -> None:
    stranger = Utterance(id="x", path=Path("x.wav"), corpus="other", speaker=f"other_{name}")
    assert validation_split([stranger]) == ([stranger], [])


def test_shares_are_kept_and_the_salt_matters() -> None:
    shares = {"train": 8, "validation": 1, "test": 1}
    keys = [f"speaker{i}" for i in range(5_000)]
    parts = [split_by_hash(key, shares) for key in keys]
    counts = Counter(parts)
    assert abs(counts["train"] - 4_000) < 120  # four standard deviations
    assert abs(counts["validation"] - 500) < 90
    assert parts == [split_by_hash(key, {k: v / 10 for k, v in shares.items()}) for key in keys]
    assert parts != [split_by_hash(key, shares, salt="again") for key in keys]
    assert {split_by_hash(key, {"a": 0, "b": 1, "c": 0}) for key in keys} == {"b"}
    with pytest.raises(DataError, match="above 0"):
        split_by_hash("x", {"a": 0})


def clip(number: int, *, speakers: int = 40) -> Utterance:
    name, text = f"u{number}", f"Sentence {number % 50}!"
    known = {"speaker": f"s{number % speakers}", "sha256": f"{number:064x}"}
    return Utterance(id=name, path=Path(f"{name}.wav"), text=text, **known)


@contextmanager
def split(
    folder: Path, clips: Iterable[Utterance], by: str, salt: str = ""
) -> Iterator[tuple[dict[str, list[Utterance]], Seen]]:
    write_manifest(folder / "m.jsonl", clips)
    with Seen(folder) as seen:
        split_manifest(folder / "m.jsonl", folder / "parts", Split(by, salt), seen)
        yield {name: list(read_manifest(folder / "parts" / name)) for name in FILES}, seen


def test_the_shares_are_eight_one_one(tmp_path: Path) -> None:
    with split(tmp_path, map(clip, range(2000)), "random") as (parts, seen):
        shares = [len(parts[name]) / 2000 for name in FILES]
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
        leaks = count_leaks(seen)
    # 50 clips of each speaker, 40 of each sentence: all of them lie in several parts.
    assert (leaks.speakers, leaks.sentences, leaks.sounds) == (40, 50, 0)


def test_speakers_are_kept_apart(tmp_path: Path) -> None:
    with split(tmp_path, map(clip, range(400)), "speaker") as (parts, seen):
        sides = [{one.speaker for one in parts[name]} for name in FILES]
        assert set().union(*sides) == {f"s{number}" for number in range(40)}
        assert sum(map(len, sides)) == 40
        assert count_leaks(seen).speakers == 0
        assert list(leak_faults(seen, Split("speaker"))) == []


def test_a_grown_corpus_moves_nobody(tmp_path: Path) -> None:
    with split(tmp_path, map(clip, range(0, 500, 3)), "random") as (few, _):
        pass
    with split(tmp_path, map(clip, range(500)), "random") as (many, _):
        assert all({u.id for u in few[name]} <= {u.id for u in many[name]} for name in FILES)


def test_a_sound_on_two_sides_is_a_fault(tmp_path: Path) -> None:
    clips = [clip(number) for number in range(100)]
    twins = [Utterance(id=f"copy{c.id}", path=c.path, sha256=c.sha256) for c in clips]
    with split(tmp_path, [*clips, *twins], "random") as (_, seen):
        faults = list(leak_faults(seen, Split("random")))
        assert count_leaks(seen).sounds == len(faults) > 10
    assert all(" is in " in fault.message for fault in faults)


def test_a_speaker_on_two_sides_is_a_fault_of_a_split_by_speaker(tmp_path: Path) -> None:
    with Seen(tmp_path) as seen:
        for part, who in enumerate(("ann", "bob", "bob")):
            seen.note("speaker in part", who, name=who, part=part)
        (fault,) = leak_faults(seen, Split("speaker"))
        assert "speaker bob: is in validation.jsonl and test.jsonl" in fault.message
        assert [*leak_faults(seen, Split("random")), *leak_faults(seen, None)] == []


def parts_of(clips: Iterable[Utterance], salt: str) -> dict[str, int]:
    parts = [Split("speaker", salt).part_of(one) for one in clips]
    return {name: parts.count(name) for name in ("train", "validation", "test")}


def test_an_empty_part_comes_with_a_salt_that_fills_it(tmp_path: Path) -> None:
    def messages(clips: list[Utterance], salt: str) -> list[str]:
        with split(tmp_path, clips, "speaker", salt) as (parts, seen):
            counts = {name: len(found) for name, found in parts.items()}
            found = [fault.message for fault in empty_parts(seen, counts, Split("speaker", salt))]
        assert len(found) == list(counts.values()).count(0) > 0
        return found

    clips = [clip(number, speakers=6) for number in range(60)]
    salt = next(str(n) for n in range(99) if not all(parts_of(clips, str(n)).values()))
    better = messages(clips, salt)[0].split("--salt ")[1].split(",")[0]
    assert all(parts_of(clips, better).values())
    two = [clip(number, speakers=2) for number in range(60)]
    assert "2 speakers cannot be split by speaker" in messages(two, "")[0]


def test_secap_is_split_by_its_sources() -> None:
    def part(clip_id: str) -> str:
        return Split("speaker").part_of(Utterance(id=clip_id, path=Path("x"), corpus="secap"))

    books = [f"tx_emulate_00_{book:03}" for book in range(60)]
    assert {part(f"{book}_0001_000001") for book in books} == {"train", "validation", "test"}
    assert all(part(f"{b}_0001_000001") == part(f"{b}_0099_000123") for b in books)


@given(st.text(alphabet="abc ,.!?'", min_size=1))
def test_a_sentence_is_its_letters_and_a_code_goes_before_them(text: str) -> None:
    one, other = (Utterance(id="u", path=Path("u"), text=t) for t in (text, text.upper() + "!"))
    assert sentence_of(one) == sentence_of(other)
    coded = Utterance(id="u", path=Path("u"), corpus="emodb", sentence="a01", text=text)
    assert sentence_of(coded) == "emodb/a01"


def test_who_was_first_is_told_and_what_a_kill_left_is_forgotten(tmp_path: Path) -> None:
    left = Seen(tmp_path)
    left.meet("id", "a", name="old")
    with Seen(tmp_path) as seen:
        assert seen.meet("id", "a", name="first") is None
        assert seen.meet("id", "a", name="second") == "first"
        assert seen.meet("sound", "a", name="third") is None
        assert seen.number("id") == seen.number("sound") == 1
        assert list(seen.times("id")) == [("first", 2)]
    left._database.close()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30)
@given(notes=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=40))
def test_notes_count_as_a_set_of_sets_does(notes: list[tuple[str, int]], tmp_path_factory) -> None:
    times = Counter(what for what, _ in notes)
    parts = {what: tuple(sorted({part for w, part in notes if w == what})) for what in times}
    with Seen(tmp_path_factory.mktemp("seen")) as seen:
        for what, part in notes:
            seen.note("x", what, name=what, part=part)
        assert dict(seen.times("x")) == dict(times)
        assert list(seen.shared("x")) == [
            Shared(what, parts[what], times[what]) for what in sorted(parts) if len(parts[what]) > 1
        ]
