"""Prompts that claim something else, captions that differ in claims, and pairs that teach these."""

from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.clues import acoustic_prompt, clue_of
from aligncap.preference.store import PreferencePair
from aligncap.preference.variety import (
    Balance,
    WordList,
    balanced_pairs,
    claim_set,
    opening_of,
    varied_acts,
    variety_of,
)
from support.preferences import candidate

ENGLISH, CHINESE = (
    "Feeling sad, low, and slow",
    acoustic_prompt(
        [clue_of("emotion", "sad", language="zh"), clue_of("pitch", "low", language="zh")], "zh"
    ),
)


@pytest.mark.parametrize(("act", "language"), [(ENGLISH, "en"), (CHINESE, "zh")])
@pytest.mark.parametrize("seed", range(5))
def test_each_prompt_claims_something_else_than_any_other(act, language, seed):
    found = varied_acts(act, language, 15, Random(seed))
    assert len(found) == 15
    assert found[0] == act
    claims = [claim_set(one, language) for one in found]
    assert len(set(claims)) == 15
    changes = Counter((bool(one - claims[0]), bool(claims[0] - one)) for one in claims[1:])
    assert changes[True, True] >= 5  # another emotion, or an opposite
    assert changes[False, True] >= 1  # one less
    assert changes[True, False] >= 1  # one more
    # One clue at a time.
    assert all(max(len(one - claims[0]), len(claims[0] - one)) == 1 for one in claims[1:])


def test_the_same_seed_gives_the_same_prompts_and_the_first_is_what_was_heard():
    assert varied_acts(ENGLISH, "en", 6, Random(1)) == varied_acts(ENGLISH, "en", 6, Random(1))
    assert varied_acts(ENGLISH, "en", 1, Random(1)) == (ENGLISH,)
    assert len(varied_acts("Feeling sad", "en", 50, Random(0))) == 1 + 7 + 6


def test_claims_are_what_is_said_whatever_the_words():
    assert claim_set("She sounds sad.", "en") >= claim_set("He sounds sorrowful.", "en") - {
        ("gender", "male", False)
    }
    assert claim_set("He is sad.", "en") != claim_set("He is not sad.", "en")
    assert claim_set("A person speaks.", "en") == frozenset()


def test_openings_by_hand():
    assert opening_of("She sounds rather sad.", "en") == "she sounds"
    assert opening_of("SHE  sounds, rather: sad.", "en") == "she sounds"
    assert opening_of("她的声音很低。", "zh") == "她的声"
    assert opening_of("Sad.", "en") == "sad"


def test_a_word_that_no_caption_has_is_found():
    words = WordList.of(["She's a soft-spoken woman.", "他很难过。"])
    assert words.knows("Soft-spoken, SHE'S a woman!")
    assert words.knows("很难过")
    assert not words.knows("She's a soft-spokent woman.")
    assert not words.knows("他很高兴")


def scored(**by_text: float) -> tuple[list, dict[str, float]]:
    """Candidates, the best first, and their scores by text."""
    texts = sorted(by_text, key=lambda text: -by_text[text])
    return [candidate(text.replace("_", " ")) for text in texts], {
        text.replace("_", " "): score for text, score in by_text.items()
    }


def pair_up(balance: Balance, **by_text: float) -> list[tuple[str, str]]:
    ranked, scores = scored(**by_text)
    found = balanced_pairs(
        ranked, lambda one: scores[one.text], balance, least_margin=0.2, near=0.1
    )
    return [(one.chosen.text, one.rejected.text) for one in found]


def test_pairs_by_hand():
    balance = Balance()
    told = {"She_sounds_sad": 1.0, "A_sad_woman_speaks": 0.95, "She_sounds_angry": 0.0}
    # Both are as good; an opening that the rejected one has too teaches nothing of openings.
    assert pair_up(balance, **told) == [("She sounds sad", "She sounds angry")]
    assert pair_up(balance, **told) == [("She sounds sad", "She sounds angry")]
    # Where the rejected one begins otherwise, the two openings take turns.
    other = {"She_sounds_sad": 1.0, "A_sad_woman_speaks": 0.95, "He_was_angry_now": 0.0}
    assert [pair_up(balance, **other)[0][0] for _ in range(4)] == [
        "She sounds sad", "A sad woman speaks", "She sounds sad", "A sad woman speaks",
    ]  # fmt: skip


def test_captions_that_claim_the_same_make_no_pair():
    assert not pair_up(Balance(), She_sounds_sad=1.0, She_is_sorrowful=0.0)
    assert not pair_up(Balance(), She_sounds_sad=0.5, She_sounds_angry=0.4)
    assert not pair_up(Balance(), She_sounds_sad=0.5)
    assert not pair_up(Balance())


OPENINGS = ("He is", "She seems", "The voice is")
MOODS = ("sad", "angry", "happy", "afraid")


@given(st.data())
def test_laws(data):
    texts = [f"{opening} {mood} today" for opening in OPENINGS for mood in MOODS]
    balance, pairs = Balance(), list[PreferencePair]()
    for _ in range(data.draw(st.integers(1, 4))):
        scores = {text: data.draw(st.integers(-4, 4)) / 4 for text in texts}
        ranked = sorted(map(candidate, texts), key=lambda one: -scores[one.text])
        found = list(
            balanced_pairs(
                ranked,
                lambda one, own=scores: own[one.text],
                balance,
                least_margin=0.25,
                near=0.25,
            )
        )
        best = max(scores.values())
        for pair in found:
            assert scores[pair.chosen.text] >= best - 0.25
            assert pair.margin == scores[pair.chosen.text] - scores[pair.rejected.text] >= 0.25
            assert claim_set(pair.chosen.text, "en") != claim_set(pair.rejected.text, "en")
        rejected = [one.rejected.key for one in found]
        assert len(set(rejected)) == len(rejected)
        pairs += found
    told = variety_of([], pairs)
    assert told.pairs == len(pairs)
    assert sum(balance.won.values()) == 0
    assert told.lead == max(balance.won.values(), default=0) / max(1, len(pairs))


def test_variety_by_hand():
    texts = ("He sounds sad.", "He sounds sorrowful.", "She sounds angry.")
    group = [candidate(text) for text in texts]
    pairs = [PreferencePair(*both, 1.0) for both in combinations(group, 2)]
    told = variety_of([group, group[:1]], pairs)
    assert (told.clips, told.pairs) == (2, 3)
    assert told.emotions == (2 + 1) / 2
    assert told.claims == (2 + 1) / 2
    assert told.differing == pytest.approx(2 / 3)
    assert told.openings == 2
    assert told.commonest == 1.0  # "he sounds" is what is chosen each time
    assert told.lead == pytest.approx(2 / 3)  # once it is rejected as well
    assert "67% of 3 pairs differ in what they claim" in str(told)
    empty = variety_of([], [])
    assert (empty.emotions, empty.differing, empty.lead) == (0.0, 0.0, 0.0)
