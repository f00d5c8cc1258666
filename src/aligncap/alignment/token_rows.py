"""From manifests and a speech tokenizer to training rows, a row for each clip as it is.

`kind = "token-rows"`, for SpeechTokenizer (the paper's), Mimi or the built-in tokenizer. Tokens are
taken from the cache that `aligncap tokens` fills; what is missing there is encoded into it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console
from rich.progress import track

from aligncap.alignment.data import SpeechSource, TrainingRow, write_rows
from aligncap.alignment.measuring import measure_all
from aligncap.alignment.row_making import training_row
from aligncap.corpora import Utterance, is_validation, read_manifest
from aligncap.corpora.manifest import labelled
from aligncap.errors import DataError, MissingModelError
from aligncap.recipes import Count, recipe_section
from aligncap.speech import TokenCache, open_tokenizer
from aligncap.training.dry_run import MANIFEST_CURE, Needed, needed_path, plan_table
from aligncap.values import Facts, SpeechTokenizer

ROWS_FILE, FACTS_FILE = "rows.jsonl", "facts.jsonl"

Clip = tuple[Utterance, str]
"""An utterance and its split."""


@recipe_section
class TokenizerSettings:
    """The speech tokenizer that the captioner will hear with."""

    name: str = "speechtokenizer"
    """As `aligncap tokens` takes it."""
    weights: Path | None = None
    """Folder of its weights, where it needs any."""
    codebooks: Count = 1
    """RVQ layers (decision 9); 1 is the paper's."""

    @property
    def options(self) -> Mapping[str, int]:
        """What `open_tokenizer` is told beside name and weights."""
        return {"codebooks": self.codebooks} if self.codebooks > 1 else {}


@recipe_section
class TokenRowsSettings:
    """A recipe of kind "token-rows"."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests of the clips to train on."""
    validation: tuple[Path, ...] = ()
    """Manifests of clips to validate on. Where none is given, this project's own validation
    speakers are kept back from `data`, if any are in it (`corpora.splits`)."""
    tokens: Path
    """Folder of the token cache (`aligncap tokens --output`)."""
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    facts: Path | None = None
    """File that keeps measured facts from one run to the next; facts.jsonl of the run if none."""
    captions: Count = 4
    """Captions a row and language, at most."""
    seed: int = 0


SETTINGS = TokenRowsSettings


def plan(settings: TokenRowsSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it: what is read, and whether it is here."""
    manifests = (*settings.data, *settings.validation)
    needed = [needed_path("manifest", path, cure=MANIFEST_CURE) for path in manifests]
    own = settings.tokenizer
    weights = Needed(f"{own.name} tokenizer", str(own.weights or own.name), _missing(own))
    note = f"nothing is trained; tokens are kept in {settings.tokens}"
    return plan_table([*needed, weights], notes=[note])


def _missing(own: TokenizerSettings) -> str:
    """What to do so that the tokenizer can be opened; empty where it can."""
    try:
        open_tokenizer(own.name, own.weights, **own.options)
    except MissingModelError as error:
        return str(error)
    return ""


def run(settings: TokenRowsSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Write `output`/rows.jsonl; with `resume` it stays where it is. Returns how many rows there
    are and of how many clips nothing is known to say."""
    path = output / ROWS_FILE
    if resume and path.exists():
        return {"rows": 0, "unsaid": 0}
    output.mkdir(parents=True, exist_ok=True)
    clips = split_clips(settings)
    own = settings.tokenizer
    tokenizer = open_tokenizer(own.name, own.weights, **own.options)
    facts = measure_all(settings.facts or output / FACTS_FILE, [one.path for one, _ in clips])
    source = SpeechSource.of(tokenizer, codebooks=own.codebooks, options=own.options)
    with filled_cache(settings.tokens, tokenizer, [one for one, _ in clips]) as cache:
        rows = write_rows(path, source, rows_of(clips, facts, cache, settings))
    if not rows:
        path.unlink()
        raise DataError(
            f"{settings.data[0]}: no clip has a caption or an emotion, so there is nothing to "
            "learn; write captions beside the clips (docs/corpora.md)"
        )
    return {"rows": rows, "unsaid": len(clips) - rows}


def split_clips(settings: TokenRowsSettings) -> list[Clip]:
    """The clips of all manifests in their order, each with its split.

    DataError where a clip is both trained and validated on, or twice in the manifests.
    """
    splits: dict[str, str] = {}
    found = []
    named = ((settings.data, "train"), (settings.validation, "validation"))
    for paths, split in named:
        for path in paths:
            for utterance in read_manifest(path):
                if utterance.id in splits:
                    raise DataError(
                        f"{path}: {utterance.id} was listed before, for {splits[utterance.id]}; "
                        "give each clip one manifest, and each corpus ids of its own"
                    )
                kept_back = not settings.validation and is_validation(utterance)
                splits[utterance.id] = "validation" if kept_back else split
                found.append((utterance, splits[utterance.id]))
    return found


def filled_cache(
    folder: Path, tokenizer: SpeechTokenizer, utterances: Sequence[Utterance]
) -> TokenCache:
    """The cache of a tokenizer, open, with the tokens of every utterance in it.

    DataError where some could not be encoded; the others are kept.
    """
    cache = TokenCache(folder, tokenizer)
    summary = cache.fill(track(utterances, "encoding", console=Console(stderr=True)))
    if summary.failures:
        cache.close()
        first = summary.failures[0]
        raise DataError(
            f"{len(summary.failures)} of {len(utterances)} clips have no tokens, the first is "
            f"{first.id}: {first.reason}"
        )
    return cache


def rows_of(
    clips: Sequence[Clip], facts: Sequence[Facts], cache: TokenCache, settings: TokenRowsSettings
) -> Iterator[TrainingRow]:
    """A row for each clip of which something is known to say."""
    for (utterance, split), shown in zip(clips, facts, strict=True):
        row = training_row(
            labelled(utterance),
            shown,
            cache.get(utterance.id),
            split=split,
            captions=settings.captions,
            seed=settings.seed,
        )
        if row is not None:
            yield row
