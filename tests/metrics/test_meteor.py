"""METEOR of 2005 against NLTK's, with and without a dictionary of synonyms."""

from dataclasses import dataclass
from random import Random

import pytest
from nltk.translate.meteor_score import meteor_score

from aligncap.metrics.meteor import Meteor, Stages, english_stages, meteor
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions
from aligncap.metrics.tokenise import open_tokeniser
from metrics.pairs import metric, synthetic_pairs

SYNONYMS = {"quiet": ["still", "calm", "at_rest"], "calm": ["still", "quiet"], "vocal": ["voice"]}
WORDS = "run running runs runner the a a a voice voices vocal calm calmly quiet quietly still"


@dataclass
class Lemma:
    word: str

    def name(self) -> str:
        return self.word


@dataclass
class Synset:
    words: list[str]

    def lemmas(self) -> list[Lemma]:
        return [Lemma(word) for word in self.words]


@dataclass
class SmallWordNet:
    """As much of a WordNet reader as NLTK's METEOR asks for."""

    words: dict[str, list[str]]

    def synsets(self, word: str) -> list[Synset]:
        return [Synset(self.words[word])] if word in self.words else []


def synonyms(word: str) -> set[str]:
    return {other for other in SYNONYMS.get(word, []) if "_" not in other}


def test_aligns_and_scores_as_nltk_does() -> None:
    stem = english_stages().stem
    rng = Random(1)
    for _ in range(1500):
        said, meant = (rng.choices(WORDS.split(), k=rng.randint(0, 12)) for _ in range(2))
        for stages, wordnet in (
            (Stages("stem", stem), SmallWordNet({})),
            (Stages("all", stem, synonyms), SmallWordNet(SYNONYMS)),
        ):
            expected = meteor_score([meant], said, wordnet=wordnet)
            assert meteor(said, meant, stages) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_synthetic_captions_score_as_nltk_scores_them(language: str) -> None:
    clips = synthetic_pairs(language, 200)
    stages = Stages("exact+stem", english_stages().stem) if language == "en" else Stages()
    ours = Meteor("meteor", stages, MetricOptions(language=language)).measure(clips)
    tokenise = open_tokeniser(None, language)
    expected = [
        meteor_score(
            [tokenise(text) for text in clip.references],
            tokenise(clip.hypothesis),
            wordnet=SmallWordNet({}),
        )
        for clip in clips
    ]
    assert ours.clip_values.tolist() == pytest.approx(expected, abs=1e-12)
    assert ours.value == pytest.approx(sum(expected) / len(expected))


def test_a_number_worked_by_hand() -> None:
    # Aligned: "a", "voice" in two chunks; precision 2/3, recall 2/4; 10PR/(R + 9P) = 20/39 of
    # which the penalty 0.5 (2/2)^3 leaves half.
    clips = [ScoredClip("x", "a slow voice", ("a calm low voice",))]
    assert metric("meteor").measure(clips).value == pytest.approx(10 / 39)


def test_the_signature_says_what_was_matched() -> None:
    stages = english_stages()
    assert stages.name in metric("meteor").variant
    assert ("wordnet" in stages.name) == (stages.synonyms is not None)
    assert "-exact|tok:zh-char" in metric("meteor", "zh").variant
