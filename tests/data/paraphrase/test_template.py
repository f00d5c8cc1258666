"""Templates: what they write, and what they say when a bracket is missing."""

from collections import Counter
from random import Random

import pytest

from aligncap.data.grammar import Said, parse

NOTHING = Said(frozenset({"voice", "tail"}), frozenset())


def write(source: str, *filled: str, draw: float = 0.0) -> str:
    said = Said(frozenset({"voice", "tail"}), frozenset(filled))
    return parse(source).render(str.upper, said, lambda: draw)


def test_slots_are_filled_and_text_stays() -> None:
    assert write("a {voice}, {who} voice", "voice") == "a VOICE, WHO voice"


def test_an_optional_part_comes_with_its_content() -> None:
    source = "she speaks[ in a {voice} voice][, {tail}]"
    assert write(source) == "she speaks"
    assert write(source, "tail") == "she speaks, TAIL"
    assert write(source, "voice", "tail") == "she speaks in a VOICE voice, TAIL"


def test_a_part_without_content_is_written_half_of_the_time() -> None:
    assert write("yes[ indeed]", draw=0.49) == "yes indeed"
    assert write("yes[ indeed]", draw=0.51) == "yes"


def test_each_choice_is_as_likely_as_the_others() -> None:
    rng = Random(0)
    template = parse("(one|two (halves|thirds)|)")
    counts = Counter(template.render(str, NOTHING, rng.random) for _ in range(6_000))
    assert set(counts) == {"one", "two halves", "two thirds", ""}
    assert abs(counts["one"] - 2_000) < 150  # four standard deviations
    assert abs(counts["two halves"] - 1_000) < 120


def test_a_template_knows_what_it_needs() -> None:
    template = parse("{who} speaks[ in a {voice} voice], {tail}")
    assert template.needs == {"who", "tail"}
    assert template.holds == {"who", "tail", "voice"}


@pytest.mark.parametrize("source", ["(one|two", "one) two", "[one", "one]"])
def test_a_bracket_that_does_not_match_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match="clos"):
        parse(source)
