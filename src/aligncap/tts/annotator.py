"""One function for whole corpora: rows with a recording in, the same rows with columns out.

`annotate` takes and gives plain dicts, so that any engine can carry it; a row that cannot be
annotated comes out with an `error`. What needs all utterances of a speaker (z-scores, the text of
their pitch) `complete` adds once `speaker_statistics` has seen them.
"""

from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from aligncap.audio import load
from aligncap.audio.sources import NamedBytes, recording
from aligncap.captioner.preparing import Spoken
from aligncap.clues import find_clues
from aligncap.errors import AlignCapError, AudioError, DataError, RecipeError
from aligncap.foreign import reason_of
from aligncap.storage import canonical_json
from aligncap.tts.bins import NUMBER_OF, TEXT_COLUMNS, describe, read_bins, text_columns
from aligncap.tts.measures import Row, Speaker, statistics_of, utterance_columns
from aligncap.values import EMOTIONS, LANGUAGES, Baseline, Caption, Waveform

AUDIO_NAMES = (
    *("audio", "speech", "wav", "file", "file_name", "audio_path", "audio_filepath"),
    *("relative_audio_path", "path"),
)
TEXT_NAMES = ("text", "transcription", "transcript", "sentence", "text_normalized")
SPEAKER_NAMES = ("speaker_id", "speaker", "speakerid")
USUAL = 16
"""Utterances of a speaker, spread over all of theirs, that say how they usually sound."""
GENDERS = {"f": "female", "w": "female", "woman": "female", "m": "male", "man": "male"}


@dataclass(frozen=True, slots=True)
class AnnotateSettings:
    """What annotations depend on. A column that is None is looked for by its usual names."""

    model: str = "mini"
    language: str = "en"
    """Of the captions."""
    bins: str = "v02"
    """A name of `bins.NAMES`, a JSON file, or "none"."""
    audio: str | None = None
    text: str | None = None
    """The column of the transcript, for phonemes and speaking rate."""
    speaker: str | None = None
    """The column of the speaker; "*" takes all rows for one speaker's."""
    per_speaker: bool = False
    """Whether captions are relative to how the speaker usually sounds, by at most `USUAL`
    utterances of the corpus that `aligncap annotate` reads, or of the batch of a call."""
    threads: int | None = None
    """Cores of one model; all if not given."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise RecipeError(f"language is {self.language}, must be {' or '.join(LANGUAGES)}")
        read_bins(self.bins)

    @property
    def signature(self) -> str:
        """Everything that the columns depend on, apart from the model's files."""
        return canonical_json({key: one for key, one in asdict(self).items() if key != "threads"})


def open_captioner(settings: AnnotateSettings) -> Any:
    """The `Captioner` of the settings."""
    from aligncap.captioner.captioner import load as load_captioner

    return load_captioner(settings.model, threads=settings.threads)


class Annotator:
    """A model with settings; called with rows, it gives them back with columns."""

    def __init__(
        self,
        settings: AnnotateSettings | None = None,
        load_model: Callable[[AnnotateSettings], Any] = open_captioner,
    ) -> None:
        """Opens the model; raises what `aligncap.load` raises."""
        self.settings = settings or AnnotateSettings()
        self.captioner = load_model(self.settings)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The rows with their columns, in order; see `annotate`."""
        return [
            complete(merged(row, found, self.settings), settings=self.settings)
            for row, found in zip(batch, self.columns(batch), strict=True)
        ]

    def columns(
        self, rows: Iterable[Row], usual: Mapping[str, Baseline] | None = None
    ) -> Iterator[Row]:
        """For each row what is measured and captioned of it, or its `error`; `rows` is read
        ahead, so that several are captioned together. `usual` is how the speakers of a whole corpus
        sound; without, it is heard in the rows, a list then, if the settings ask for it."""
        if usual is None and self.settings.per_speaker:
            usual = usual_voices(self.captioner, lambda: rows, self.settings)
        voices = usual or {}
        waiting: deque[tuple[Row, Row | AlignCapError]] = deque()

        def heard() -> Iterator[Spoken]:
            for row in rows:
                try:
                    sound = waveform_of(audio_of(row, self.settings))
                    text = value_of(row, self.settings.text, TEXT_NAMES)
                    check_speaker(row, self.settings)
                    # Before the caption, so that no samples wait for it.
                    waiting.append((row, utterance_columns(sound, row, text)))
                except AlignCapError as error:
                    waiting.append((row, error))
                else:
                    yield Spoken(sound, voices.get(speaker_of(row, self.settings) or ""))

        def silent() -> Iterator[Row]:
            while waiting and isinstance(error := waiting[0][1], AlignCapError):
                row, _ = waiting.popleft()
                yield error_columns(row, error)

        captions = self.captioner.caption_many(
            heard(), language=self.settings.language, candidates=1, evidence=True
        )
        for caption in captions:
            yield from silent()
            row, numbers = waiting.popleft()
            assert not isinstance(numbers, AlignCapError)
            if isinstance(caption, AlignCapError):
                yield {**numbers, **error_columns(row, caption)}
            else:
                yield {**numbers, **caption_columns(caption), **_source_of(row), "error": None}
        yield from silent()


def usual_voices(
    captioner: Any, read: Callable[[], Iterable[Row]], settings: AnnotateSettings
) -> dict[str, Baseline]:
    """How each speaker usually sounds, by at most `USUAL` utterances at even distances among
    theirs, since corpora are often sorted by emotion; `read` is called twice and gives all rows."""
    counts = Counter(speaker_of(row, settings) for row in read())
    del counts[None]
    seen: Counter[str | None] = Counter()

    def heard() -> Iterator[tuple[str, Waveform | AlignCapError]]:
        for row in read():
            speaker = speaker_of(row, settings)
            seen[speaker] += 1
            if speaker is None or (seen[speaker] - 1) % -(-counts[speaker] // USUAL):
                continue
            try:
                yield speaker, waveform_of(audio_of(row, settings))
            except AlignCapError as error:
                yield speaker, error

    found: dict[str, Baseline] = captioner.voices(heard())
    return found


def check_voices(rows: Iterable[Row], settings: AnnotateSettings) -> None:
    """DataError where no row says whose voice it is."""
    if all(speaker_of(row, settings) is None for row in rows):
        raise DataError(
            "--per speaker: no row says who speaks; name their column with --speaker-column, or "
            "give --one-speaker"
        )


@lru_cache(maxsize=2)
def _annotator(settings: AnnotateSettings) -> Annotator:
    return Annotator(settings)


def annotate(batch: list[Row], settings: AnnotateSettings | None = None) -> list[Row]:
    """The rows of a batch with the columns of `docs/tts.md`, in order.

    A row has its recording in the column of the settings (a path, bytes, `{"bytes", "path"}`,
    `{"array", "sampling_rate"}`, a Waveform or a decoder of Hugging Face datasets). A row that
    cannot be annotated has the reason in `error`. The model is opened once a process.
    """
    return _annotator(settings or AnnotateSettings())(batch)


def speaker_statistics(
    rows: Iterable[Mapping[str, Any]], settings: AnnotateSettings | None = None
) -> dict[str, Speaker]:
    """Means and spreads of each speaker over annotated rows, for `complete`."""
    settings = settings or AnnotateSettings()
    return statistics_of((speaker_of(row, settings), row) for row in rows)


def complete(
    row: Row,
    speakers: Mapping[str, Speaker] | None = None,
    settings: AnnotateSettings | None = None,
) -> Row:
    """An annotated row with the columns that follow from its numbers: z-scores, gender, the texts
    of the bins and `text_description`.

    Where the speaker is not in `speakers`, the text of the pitch is that of the utterance alone
    and z-scores are None.
    """
    settings = settings or AnnotateSettings()
    name = speaker_of(row, settings)
    speaker = (speakers or {}).get(name) if name is not None else None
    texts = texts_of(row, speaker, settings)
    alone = dict.fromkeys(Z_SCORES)
    added = {**(speaker.z_scores(row) if speaker else alone), **texts}
    added["text_description"] = _description(row, texts, settings)
    if row.get("gender_source") == "heard":
        added["gender"] = _gender(row, speaker)
    return {**row, **added}


def texts_of(row: Row, speaker: Speaker | None, settings: AnnotateSettings) -> Row:
    """The texts of the bins; without bins, `speaking_rate` as a number."""
    bins = read_bins(settings.bins)
    if not bins:
        return {"speaking_rate": row.get("phonemes_per_s")}
    texts: Row = {}
    gender = _gender(row, speaker)
    if "pitch" in text_columns(bins):
        mean = speaker.pitch_hz.mean if speaker and speaker.pitch_hz.count else None
        scale = bins.get(f"pitch_bins_{gender}")
        texts["pitch"] = scale.text(mean or row.get("utterance_pitch_mean")) if scale else None
    for column, number in NUMBER_OF.items():
        if column in bins:
            texts[column] = bins[column].text(row.get(number))
    return texts


def _gender(row: Row, speaker: Speaker | None) -> str | None:
    """The corpus' word for it, or what is heard of the speaker, or of the utterance."""
    if row.get("gender_source") != "heard":
        word = str(row.get("gender") or "").strip().lower()
        if (told := GENDERS.get(word, word)) in GENDERS.values():
            return told
    heard = row.get("heard_gender")
    return speaker.gender if speaker else heard if isinstance(heard, str) else None


_NAMED = {"pitch": "pitch", "intonation": "speech_monotony", "pace": "speaking_rate"}
"""Trait of a clue → the column that says the same."""


def _description(row: Row, texts: Row, settings: AnnotateSettings) -> str | None:
    """The caption, and a sentence of what the bins say and the caption does not."""
    caption = row.get("caption")
    if not caption:
        return None
    if settings.language != "en" or settings.bins == "none":
        return str(caption)
    named = {_NAMED.get(clue.trait) for clue in find_clues(caption, "en")}
    left = {name: texts.get(name) for name in TEXT_COLUMNS if name not in named}
    return f"{caption} {describe(left)}".strip()


def caption_columns(caption: Caption) -> Row:
    """A caption's record as columns: names that a corpus or the bins use for something else are
    longer here, and whatever a record may hold besides keeps its name."""
    record = caption.to_dict()
    emotions = record.pop("emotion") or {}
    if (baseline := record.pop("baseline", None)) is not None:
        record[BASELINE_CLIPS] = baseline["clips"]
    row = {
        "caption": record.pop("caption"),
        "emotion": max(emotions, key=emotions.__getitem__) if emotions else None,
        "emotion_probabilities": {name: emotions.get(name, 0.0) for name in EMOTIONS}
        if emotions
        else None,
        "evidence": record.pop("clues"),
    }
    for short, name in _LONGER.items():
        row[name] = record.pop(short, None)
    return {**row, **record}


_LONGER = {
    "gender": "heard_gender",
    "pitch": "pitch_level",
    "loudness": "loudness_level",
    "pace": "pace_level",
    "language": "caption_language",
    "model": "caption_model",
}


def error_columns(row: Row, error: AlignCapError) -> Row:
    """The columns of a row that could not be annotated."""
    return {**_source_of(row), "error": " ".join(str(error).split("\n"))}


def _source_of(row: Row) -> Row:
    """Whether the gender is the corpus' word or, where it has none, what is heard."""
    return {"gender_source": "heard" if row.get("gender") in (None, "") else "corpus"}


def merged(row: Mapping[str, Any], found: Row, settings: AnnotateSettings) -> Row:
    """A row of a corpus and its columns; a column of the corpus that one of ours is called like
    becomes `input_…`."""
    own = {*found, *own_columns(settings)}
    kept = {renamed(name, own): value for name, value in row.items()}
    return {**kept, **found}


def renamed(name: str, own: Container[str]) -> str:
    """What a column of a corpus is called beside ours."""
    return f"input_{name}" if name in own or name == BASELINE_CLIPS else name


FOUND = (
    *("phonemes", "utterance_pitch_mean", "utterance_pitch_std", "snr", "c50"),
    *("speech_duration", "phonemes_per_s", "pitch_median_hz", "loudness_lufs"),
    *("syllables_per_s", "female_probability"),
    *("caption", "emotion", "emotion_probabilities", "evidence", *_LONGER.values()),
    *("duration_s", "part_s", "arousal", "valence", "confidence", "gender_source", "error"),
    *("certainty", "second_emotion", "vocalization", "unfamiliar"),
)
"""Columns that a row has from `Annotator.columns`, besides what else a caption's record holds."""

BASELINE_CLIPS = "baseline_clips"
"""A column of runs with captions relative to the speaker; another's is never taken for it."""

Z_SCORES = ("pitch_z", "loudness_z", "pace_z")


def own_columns(settings: AnnotateSettings) -> tuple[str, ...]:
    """The columns that every annotated corpus has; `gender` is one more where it has none."""
    texts = (*text_columns(read_bins(settings.bins)), "text_description")
    return (*FOUND, *Z_SCORES, *texts, *((BASELINE_CLIPS,) if settings.per_speaker else ()))


def value_of(row: Mapping[str, Any], name: str | None, usual: Iterable[str]) -> Any:
    """The value of a column by its name, or by the first of its usual names that the row has.

    DataError where the row lacks the column that was named.
    """
    if name is not None:
        if name not in row:
            raise DataError(f"no column called {name!r}; the row has {', '.join(sorted(row))}")
        return row[name]
    return next((row[one] for one in usual if row.get(one) is not None), None)


def audio_of(row: Mapping[str, Any], settings: AnnotateSettings) -> Any:
    """What a row has of its recording; DataError where that is nothing."""
    audio = value_of(row, settings.audio, AUDIO_NAMES)
    if audio is None:
        asked = settings.audio or "audio"
        raise DataError(f"row {row.get('id', '')}: has no recording in its column {asked!r}")
    return audio


def check_speaker(row: Mapping[str, Any], settings: AnnotateSettings) -> None:
    """DataError where a row lacks the column of the speaker that was named."""
    if settings.speaker != "*":
        value_of(row, settings.speaker, ())


def speaker_of(row: Mapping[str, Any], settings: AnnotateSettings) -> str | None:
    """The speaker's name; None where nobody says whose voice it is."""
    if settings.speaker == "*":
        return "*"
    if settings.speaker is not None and settings.speaker not in row:
        return None
    speaker = value_of(row, settings.speaker, SPEAKER_NAMES)
    return None if speaker is None or speaker == "" else str(speaker)


def waveform_of(audio: Any) -> Waveform:
    """The sound of a column's value; AudioError or DataError for what is none."""
    if isinstance(audio, AlignCapError):
        raise audio
    try:
        match audio:  # the bytes of a file; a whole number here would be a count of zeros to make
            case {"bytes": bytes() | bytearray() | memoryview() as data, "path": str(name)} if name:
                audio = NamedBytes(bytes(data), name)
        found = recording(audio)
        return found if isinstance(found, Waveform) else load(found)
    except (TypeError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise AudioError(f"recording: cannot be read ({reason_of(error)}); look at it") from error
