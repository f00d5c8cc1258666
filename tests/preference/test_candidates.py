"""Candidates: what a model is asked, what is kept, what a second run does."""

from dataclasses import replace
from pathlib import Path

import pytest

from aligncap.captioner.runtimes import DecodeOptions
from aligncap.data.manifest import Utterance
from aligncap.errors import AlignCapError, AudioError, RecipeError, UnknownNameError
from aligncap.preference.candidates import (
    CandidateOptions,
    decode_options,
    find_candidates,
    provenance_of,
    stored_file,
)
from aligncap.preference.store import ClipCandidates, PreferenceStore
from support.preferences import FakeSampler

ALIKE = ("He is sad.", "he is SAD", "", "He is sad and slow.", "…", "He is calm.", "He is low.")


def utterance(folder: Path, name: str, **more: str) -> Utterance:
    return Utterance(id=name, path=folder / f"{name}.wav", **more)  # type: ignore[arg-type]


def find(
    store: PreferenceStore, model: FakeSampler, folder: Path, *names: str, **options: object
) -> list[ClipCandidates | AlignCapError]:
    chosen = CandidateOptions(count=3, **options)  # type: ignore[arg-type]
    return list(
        find_candidates(
            [utterance(folder, name, emotion="sad", gender="male") for name in names],
            model,
            store,
            options=chosen,
            provenance=provenance_of(chosen, model.options, model="fake", fingerprint="01"),
            language="en",
            root=folder,
        )
    )


def test_different_captions_are_kept_with_ids_and_probabilities(
    store: PreferenceStore, tmp_path: Path
) -> None:
    (found,) = find(store, FakeSampler(ALIKE), tmp_path, "u1")
    assert isinstance(found, ClipCandidates)
    assert [one.text for one in found.candidates] == [
        "He is sad.",
        "He is sad and slow.",
        "He is calm.",
    ]
    assert [(one.token_ids, one.log_probability) for one in found.candidates] == [
        ((0, 2), -1.0),
        ((3, 2), -4.0),
        ((5, 2), -6.0),
    ]
    clip = store.clip("u1")
    assert clip == found.clip
    assert (clip.file, clip.emotion, clip.gender) == ("u1.wav", "sad", "male")
    assert clip.facts is not None


def test_the_caption_of_the_corpus_is_kept_beside_them(
    store: PreferenceStore, tmp_path: Path
) -> None:
    find(store, FakeSampler(ALIKE), tmp_path, "u1")
    methods = [one.method for one in store.candidates("u1", "en")]
    assert methods == ["beam", "beam", "beam", "gold"]


def test_a_second_run_asks_for_what_is_missing_only(store: PreferenceStore, tmp_path: Path) -> None:
    model = FakeSampler(ALIKE)
    find(store, model, tmp_path, "u1", "u2")
    find(store, model, tmp_path, "u1", "u3", "u2")
    assert [path.stem for path in model.heard] == ["u1", "u2", "u3"]
    find(store, model, tmp_path, "u1", method="sample", seed=7)
    assert [path.stem for path in model.heard][3:] == ["u1"]
    assert len(store.sources()) == 3  # two of the model, one of the corpus


def test_a_recording_that_cannot_be_read_stops_nobody(
    store: PreferenceStore, tmp_path: Path
) -> None:
    first, broken, last = find(store, FakeSampler(ALIKE), tmp_path, "u1", "broken", "u2")
    assert isinstance(broken, AudioError)
    assert isinstance(first, ClipCandidates)
    assert isinstance(last, ClipCandidates)
    assert last.clip.utterance == "u2"


def test_an_id_of_two_files_is_told_and_the_rest_goes_on(
    store: PreferenceStore, tmp_path: Path
) -> None:
    model = FakeSampler(ALIKE)
    find(store, model, tmp_path, "u1")
    elsewhere = replace(utterance(tmp_path, "u1"), path=tmp_path / "b" / "u1.wav")
    options = CandidateOptions(count=2)
    error, found = find_candidates(
        [elsewhere, utterance(tmp_path, "u2")],
        model,
        store,
        options=options,
        provenance=provenance_of(options, model.options, model="fake", fingerprint="01"),
        language="en",
        root=tmp_path,
    )
    assert "its id 'u1' belongs to u1.wav" in str(error)
    assert isinstance(found, ClipCandidates)


BASE = DecodeOptions(beam_size=4, min_length=3, max_length=40)


def test_each_method_asks_for_all_candidates_in_one_search() -> None:
    beam = decode_options(CandidateOptions(count=5), BASE)
    assert (beam.beam_size, beam.captions, beam.groups, beam.sampling) == (5, 5, 1, None)
    assert decode_options(CandidateOptions(count=2), BASE).beam_size == 4
    diverse = decode_options(CandidateOptions(count=5, method="diverse", diversity=0.7), BASE)
    assert (diverse.beam_size, diverse.captions, diverse.groups) == (5, 5, 5)
    assert diverse.diversity == 0.7
    drawn = decode_options(CandidateOptions(count=5, method="sample", temperature=0.8), BASE)
    assert drawn.captions == 5
    assert drawn.sampling is not None
    assert (drawn.sampling.temperature, drawn.sampling.top_p) == (0.8, 0.95)
    assert {one.max_length for one in (beam, diverse, drawn)} == {40}


def test_provenance_changes_with_what_changes_the_candidates() -> None:
    def key(fingerprint: str = "01", base: DecodeOptions = BASE, **options: object) -> str:
        chosen = CandidateOptions(**options)  # type: ignore[arg-type]
        return provenance_of(chosen, base, model="m", fingerprint=fingerprint).key

    keys = [key(), key("02"), key(count=4), key(method="sample"), key(method="sample", seed=1)]
    keys += [key(base=replace(BASE, max_length=41)), key(method="diverse")]
    assert len(set(keys)) == len(keys)
    assert key() == key()


def test_options_are_checked() -> None:
    with pytest.raises(RecipeError, match="count is 1"):
        CandidateOptions(count=1)
    with pytest.raises(UnknownNameError, match="did you mean 'diverse'"):
        CandidateOptions(method="divers")


def test_files_are_named_from_the_manifests_folder(tmp_path: Path) -> None:
    assert stored_file(tmp_path / "a" / ".." / "b.wav", tmp_path) == "b.wav"
    assert stored_file(tmp_path.parent / "b.wav", tmp_path) == str(tmp_path.parent / "b.wav")
