"""Splits: nobody is on two sides or ever changes sides, and leaks are counted."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.data.manifest import Utterance, read_manifest, write_manifest
from aligncap.data.splits import (
    FILES,
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
    validation_split,
)
from aligncap.errors import DataError

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "speech"
CORPORA = ("ased", "emodb", "nemo", "ravdess", "secap")
"""Those whose validation speakers are fixed."""


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    if not SPEECH.is_dir():
        pytest.skip("the corpora are not here (../shared/data/speech)")
    return [u for name in CORPORA for u in read_manifest(SPEECH / name / "manifest.jsonl")]


def source(utterance: Utterance) -> str:
    return utterance.speaker or secap_source(utterance.id)


def golden(utterances: list[Utterance]) -> str:
    names = sorted(f"{u.corpus}/{u.id}" for u in utterances)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def test_no_speaker_and_no_source_is_on_both_sides(utterances: list[Utterance]) -> None:
    train, validation = validation_split(utterances)
    assert len(train) + len(validation) == len(utterances) == 7_646
    assert {source(u) for u in train}.isdisjoint(source(u) for u in validation)


def test_the_validation_set_is_the_one_that_was_agreed(utterances: list[Utterance]) -> None:
    _, validation = validation_split(utterances)
    voices = {(u.corpus, u.speaker): u.gender for u in validation if u.speaker != "ased_09"}
    by_corpus = Counter((corpus, gender) for (corpus, _), gender in voices.items())
    assert by_corpus["ravdess", "female"] == by_corpus["ravdess", "male"] == 2
    assert by_corpus["emodb", "female"] == by_corpus["emodb", "male"] == 1
    assert sum(count for (corpus, _), count in by_corpus.items() if corpus == "nemo") == 1
    speakers = sorted({u.speaker or "" for u in utterances if u.corpus == "ased"})
    kept_back = {u.speaker for u in validation if u.corpus == "ased"}
    assert kept_back == set(speakers[7::8])
    secap = [u.corpus for u in validation].count("secap")
    assert 0.09 <= secap / 472 <= 0.11


def test_the_split_never_changes(utterances: list[Utterance]) -> None:
    train, validation = validation_split(utterances)
    assert (golden(train), golden(validation)) == ("e106144e94b05757", "a500d3cd18c11468")


def test_a_part_of_a_corpus_is_split_like_the_whole(utterances: list[Utterance]) -> None:
    _, of_all = validation_split(utterances)
    _, of_part = validation_split(reversed(utterances[::3]))
    assert {u.id for u in of_part} == {u.id for u in utterances[::3]} & {u.id for u in of_all}


def test_clips_of_one_book_and_of_one_voice_share_a_source() -> None:
    assert secap_source("tx_emulate_00_110_0002_000039") == secap_source(
        "tx_emulate_00_110_0004_000001"
    )
    assert secap_source("tx_emotion_00303000130") == secap_source("tx_emotion_00301000019")
    assert secap_source("tx_emotion_00303000130") != secap_source("tx_emotion_00203000019")
    with pytest.raises(DataError, match="u1: not a secap id"):
        secap_source("u1")


def test_who_is_kept_back_is_fixed() -> None:
    names = [f"ravdess_{n:02}" for n in (5, 10, 15, 20)] + ["emodb_10", "emodb_14", "nemo_IC0"]
    assert set(names) | {f"ased_{n:02}" for n in range(9, 64, 9)} == VALIDATION_SPEAKERS
    sources = [f"tx_emulate_00_{n:03}" for n in range(200)]
    places = [hashlib.sha256(f"validation\0{one}".encode()).hexdigest()[:12] for one in sources]
    wanted = {
        one for one, place in zip(sources, places, strict=True) if int(place, 16) < 0.29 * 2**48
    }
    # Studio voices are trained on, wherever their hash falls.
    sources += ["tx_xiao", *(f"tx_emotion_{n:03}" for n in range(1, 31))]
    clips = [Utterance(id=f"{one}_1", path=Path("x"), corpus="secap") for one in sources]
    _, kept = validation_split(clips)
    assert {secap_source(one.id) for one in kept} == wanted


@given(st.text(min_size=1))
def test_unknown_speakers_are_trained_on(name: str) -> None:
    stranger = Utterance(id="x", path=Path("x.wav"), corpus="other", speaker=f"other_{name}")
    assert stranger.speaker not in VALIDATION_SPEAKERS
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


def test_a_part_without_a_share_gets_nothing() -> None:
    assert {split_by_hash(str(i), {"a": 0, "b": 1, "c": 0}) for i in range(200)} == {"b"}
    with pytest.raises(DataError, match="above 0"):
        split_by_hash("x", {"a": 0})


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


def test_a_speaker_on_two_sides_is_a_fault_of_a_split_by_speaker(tmp_path: Path) -> None:
    with Seen(tmp_path) as seen:
        for part, who in enumerate(("ann", "bob", "bob")):
            seen.note("speaker in part", who, name=who, part=part)
        faults = {by: list(leak_faults(seen, Split(by))) for by in ("speaker", "random")}
        assert not list(leak_faults(seen, None))
    (fault,) = faults["speaker"]
    assert "speaker bob: is in validation.jsonl and test.jsonl" in fault.message
    assert not faults["random"]


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


def test_who_was_first_is_told(tmp_path: Path) -> None:
    with Seen(tmp_path) as seen:
        assert seen.meet("id", "a", name="first") is None
        assert seen.meet("id", "a", name="second") == "first"
        assert seen.meet("sound", "a", name="third") is None
        assert seen.number("id") == seen.number("sound") == 1
        assert list(seen.times("id")) == [("first", 2)]
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_is_forgotten(tmp_path: Path) -> None:
    left = Seen(tmp_path)
    left.meet("id", "a", name="old")
    with Seen(tmp_path) as seen:
        assert seen.meet("id", "a", name="new") is None
    left._database.close()


@settings(deadline=None, max_examples=30)
@given(notes=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=40))
def test_notes_count_as_a_set_of_sets_does(notes: list[tuple[str, int]], tmp_path_factory) -> None:
    parts: dict[str, set[int]] = {}
    for what, part in notes:
        parts.setdefault(what, set()).add(part)
    times = Counter(what for what, _ in notes)
    with Seen(tmp_path_factory.mktemp("seen")) as seen:
        for what, part in notes:
            seen.note("x", what, name=what, part=part)
        assert dict(seen.times("x")) == dict(times)
        assert list(seen.shared("x")) == [
            Shared(what, tuple(sorted(where)), times[what])
            for what, where in sorted(parts.items())
            if len(where) > 1
        ]
