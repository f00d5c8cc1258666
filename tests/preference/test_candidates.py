"""Candidates: what a model is asked, what is kept, what a second run does."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aligncap.captioner.captioner import StudentInput
from aligncap.captioner.record import CaptionHypothesis
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.data.manifest import Utterance
from aligncap.errors import AlignCapError, AudioError, RecipeError
from aligncap.preference import candidates
from aligncap.preference.candidates import (
    CandidateOptions,
    check_claims,
    decode_options,
    inputs_of,
    provenance_of,
)
from aligncap.preference.store import Clip, ClipCandidates, PreferenceStore
from aligncap.preference.variety import WordList, claim_set
from aligncap.values import SpeechTokens
from support.captioner import tiny_meta
from support.preferences import FakeSampler

ALIKE = ("He is sad.", "he is SAD", "", "He is sad and slow.", "…", "He is calm.", "He is low.")


def find(
    store: PreferenceStore, model: FakeSampler, folder: Path, *names: str, **options: object
) -> list[ClipCandidates | AlignCapError]:
    """What is found of folder/name.wav, by the file's stem."""
    chosen = CandidateOptions(count=3, **options)
    paths = [folder / f"{name}.wav" for name in names]
    return list(
        candidates.find_candidates(
            [Utterance(path.stem, path, emotion="sad", gender="male") for path in paths],
            model,
            store,
            options=chosen,
            provenance=provenance_of(chosen, model.options, model="fake", fingerprint="01"),
            language="en",
            root=folder,
        )
    )


def test_different_captions_are_kept_with_ids_and_probabilities(store, tmp_path) -> None:
    (found,) = find(store, FakeSampler(ALIKE), tmp_path, "u1")
    assert [(one.text, one.token_ids, one.log_probability) for one in found.candidates] == [
        ("He is sad.", (0, 2), -1.0),
        ("He is sad and slow.", (3, 2), -4.0),
        ("He is calm.", (5, 2), -6.0),
    ]
    clip = store.clip("u1")
    assert clip == found.clip
    assert (clip.file, clip.emotion, clip.gender) == ("u1.wav", "sad", "male")
    assert clip.facts is not None
    # The caption of the corpus is kept beside them.
    methods = [one.method for one in store.candidates("u1", "en")]
    assert methods == ["beam", "beam", "beam", "gold"]


def test_a_second_run_asks_for_what_is_missing_only(store: PreferenceStore, tmp_path: Path) -> None:
    model = FakeSampler(ALIKE)
    find(store, model, tmp_path, "u1", "u2")
    find(store, model, tmp_path, "u1", "u3", "u2")
    find(store, model, tmp_path, "u1", method="sample", seed=7)
    assert [path.stem for path in model.heard] == ["u1", "u2", "u3", "u1"]
    assert len(store.sources()) == 3  # two of the model, one of the corpus


def test_what_cannot_be_read_or_kept_stops_nobody(store: PreferenceStore, tmp_path: Path) -> None:
    names = ("u1", "broken", "elsewhere/u1", "u2")
    first, broken, other, last = find(store, FakeSampler(ALIKE), tmp_path, *names)
    assert isinstance(broken, AudioError)
    assert "its id 'u1' belongs to u1.wav" in str(other)
    assert [one.clip.utterance for one in (first, last)] == ["u1", "u2"]


@dataclass
class Obedient(FakeSampler):
    """A model that says of each recording what its acoustic prompt says."""

    asked: list[str] = field(default_factory=list)

    @property
    def generator(self) -> Any:
        return self

    @property
    def meta(self) -> Any:
        return SimpleNamespace(act_mode="measured", plans=False)

    def generate(self, inputs: Any, *, language: str, options: DecodeOptions) -> Any:
        assert options.captions == 1
        self.asked += [one.act for one in inputs]
        said = [f"This is {one.act.removeprefix('Feeling ')}" for one in inputs]
        return [(CaptionHypothesis(text, Hypothesis((1, 2), -1.0, -0.5)),) for text in said]


def test_the_method_claims_asks_as_if_other_things_had_been_heard(store, tmp_path) -> None:
    model = Obedient(("The woman is loud.",))
    (found,) = find(store, model, tmp_path, "u1", method="claims")
    sets = [claim_set(one.text, "en") for one in found.candidates]
    assert len(sets) == len(set(sets)) == 3
    assert found.candidates[0].text == "The woman is loud."
    assert {one.method for one in found.candidates} == {"claims"}
    # Three prompts a candidate, the first of them the one that was heard.
    assert len(set(model.asked)) == 3 * 3 - 1
    again = Obedient(("The woman is loud.",))
    find(store, again, tmp_path, "u2", method="claims")
    assert again.asked != model.asked  # each clip has its own


def test_what_was_not_heard_cannot_be_changed() -> None:
    tokens = SpeechTokens(np.zeros((1, 4), dtype=np.int64))
    options = CandidateOptions(method="claims")
    with pytest.raises(RecipeError, match="the model reads none"):
        check_claims(tiny_meta(act_mode="none"))
    check_claims(tiny_meta(act_mode="heard"))
    for given in (options, CandidateOptions()):  # of some clips nothing is heard
        assert inputs_of(StudentInput(tokens), "u1", "en", given) == [StudentInput(tokens)]
    low = StudentInput(tokens, "Feeling low")
    asked = inputs_of(low, "u1", "en", options)
    assert asked[0] == low
    assert asked == inputs_of(low, "u1", "en", options)


def test_captions_with_words_that_nobody_uses_are_dropped() -> None:
    texts = ("He is sadd.", "He is sad.", "He is sorrowful.")
    said = [CaptionHypothesis(text, Hypothesis((1, 2), -1.0, -0.5)) for text in texts]
    words = WordList.of(["he is sad, sorrowful"])

    def kept(method: str) -> list[str]:
        options = CandidateOptions(method=method)
        found = candidates.distinct(Clip("u1", "u1.wav"), "en", said, options, words)
        return [one.text for one in found]

    assert kept("sample") == ["He is sad.", "He is sorrowful."]
    assert kept("claims") == ["He is sad."]  # the other claims the same


BASE = DecodeOptions(beam_size=4, min_length=3, max_length=40)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"count": 5}, {"beam_size": 5, "captions": 5, "groups": 1, "sampling": None}),
        ({"count": 2}, {"beam_size": 4}),
        (
            {"count": 5, "method": "diverse", "diversity": 0.7},
            {"beam_size": 5, "captions": 5, "groups": 5, "diversity": 0.7},
        ),
        ({"count": 5, "method": "sample"}, {"captions": 5}),
    ],
)
def test_each_method_asks_for_all_candidates_in_one_search(options: Any, asked: Any) -> None:
    found = decode_options(CandidateOptions(**options), BASE)
    assert {name: getattr(found, name) for name in asked} == asked
    assert found.max_length == 40


def test_samples_are_drawn_at_their_temperature() -> None:
    drawn = decode_options(CandidateOptions(method="sample", temperature=0.8), BASE).sampling
    assert (drawn.temperature, drawn.top_p) == (0.8, 0.95)


def test_provenance_changes_with_what_changes_the_candidates() -> None:
    def key(fingerprint: str = "01", base: DecodeOptions = BASE, **options: object) -> str:
        chosen = CandidateOptions(**options)
        return provenance_of(chosen, base, model="m", fingerprint=fingerprint).key

    keys = [key(), key("02"), key(count=4), key(method="sample"), key(method="sample", seed=1)]
    keys += [key(base=replace(BASE, max_length=41)), key(method="diverse")]
    assert len(set(keys)) == len(keys)
    assert key() == key()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": 1}, "count is 1"), ({"method": "divers"}, "did you mean 'diverse'")],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AlignCapError, match=message):
        CandidateOptions(**options)


def test_files_are_named_from_the_manifests_folder(tmp_path: Path) -> None:
    above = tmp_path.parent / "b.wav"
    assert candidates.stored_file(tmp_path / "a" / ".." / "b.wav", tmp_path) == "b.wav"
    assert candidates.stored_file(above, tmp_path) == str(above)
