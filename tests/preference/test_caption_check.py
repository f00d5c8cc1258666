"""What is said of greedy captions, against numbers counted by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from aligncap.captioner.captioner import CaptionHypothesis
from aligncap.captioner.checkpoint import CaptionLimits
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.preference.examples import PreferenceRow
from aligncap.preference.reward import CaptionCheck, CheckSettings
from support.preferences import preference_rows

SAID = {7: "She sounds sad and quiet.", 8: "She sounds angry and loud.", 9: "Somebody speaks."}


class Fixed:
    """Stands for a model: says of each clip what is written here, clip 7 first."""

    limits = CaptionLimits()

    def prompt_ids(self, place: int, row: PreferenceRow) -> tuple[int, ...]:
        return (place,)

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[tuple[CaptionHypothesis, ...]]:
        assert options.beam_size == 1
        return [
            (CaptionHypothesis(SAID[n], Hypothesis((n,) * (n - 5), -1.0, -1.0)),)
            for (n,) in prompts
        ]


def check(rows: list[PreferenceRow], **options: object) -> dict[str, float]:
    return CaptionCheck(Fixed(), rows, CheckSettings(rows=9), **options)()  # type: ignore[arg-type]


def test_counts_by_hand() -> None:
    """Clips 7, 8 and 9 are for validation: happy, angry and sad, all of them quiet."""
    found = check(preference_rows(10), reward=lambda row, texts: [float(len(texts[0]))])
    # Of "quiet" and "loud" the signal contradicts one; of "she", "sad" … it cannot tell.
    assert found["validation_contradicted"] == 0.5
    # She, sad, quiet; she, angry, loud; nothing.
    assert found["validation_clues"] == 2.0
    assert found["validation_tokens"] == (2 + 3 + 4) / 3
    # Only of the second the emotion that is named is the labelled one.
    assert found["validation_emotion"] == pytest.approx(1 / 3)
    assert found["validation_reward"] == (25 + 26 + 16) / 3


def test_what_is_not_known_is_not_told() -> None:
    bare = [replace(row, facts=None, emotion=None) for row in preference_rows(10)]
    assert set(check(bare)) == {"validation_clues", "validation_tokens"}
    assert check(preference_rows(5)) == {}
