"""Recordings in, captions out: generation (Eq. 4), and `load`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from aligncap.audio import Recording, SpeechDetector, recording
from aligncap.audio.sources import held, is_recording, several
from aligncap.captioner import checkpoint, preparing, runtimes
from aligncap.captioner.choosing import Candidates, CaptionCandidates, chosen, settled
from aligncap.captioner.drawing import Drawing
from aligncap.captioner.preparing import PreparedSpeech, Preprocessor, Spoken, warn_of_part
from aligncap.captioner.prompts import PromptBuilder, plan_of, student_acoustic_prompt
from aligncap.captioner.record import CaptionHypothesis, build_caption
from aligncap.captioner.segments import Segment, joined, segments
from aligncap.captioner.transcripts import Line
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.data.grammar import STYLES, split_plan
from aligncap.errors import (
    AlignCapError,
    DataError,
    MissingModelError,
    NoSpeechError,
    RecipeError,
    UnknownNameError,
)
from aligncap.prosody.baseline import Measured, baseline_of, baselines_of, voices_of
from aligncap.storage import usable_cores
from aligncap.tokenizers import open_tokenizer
from aligncap.values import Baseline, Caption, SpeechTokenizer, SpeechTokens, Waveform


class StudentInput(NamedTuple):
    """What a caption is written from."""

    tokens: SpeechTokens
    act: str = ""
    """P_act; "" where there is none."""
    plan: str = ""
    """The plan of the caption ("f17 3"); "" where the model has none, or chooses for itself."""


RUNTIMES = ("auto", "ct2", "torch")
"""What the language model runs on; "auto" takes CTranslate2 where the folder is exported."""

FURTHER_BEAM_SIZE = 3
"""For the further plans of a clip whose first caption does not say what the record says."""

LARGE_MODEL_BYTES = 500_000_000
"""Above this, all cores share one response: a single one would take long."""


def generate_captions(
    runtime: runtimes.LanguageRuntime,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    options: runtimes.DecodeOptions,
) -> list[tuple[CaptionHypothesis, ...]]:
    """For each prompt of ids up to `options.captions` captions, best first (Eq. 3)."""
    return [
        tuple(
            CaptionHypothesis(split_plan(vocabulary.decode(one.ids))[1].strip(), one)
            for one in found
        )
        for found in runtime.generate(prompts, options)
    ]


SHOWN_S = 10.0
"""Of the clips of `mini`'s corpora one in a thousand is longer. In longer prompts than it has met
its language model loses the thread, and writes words that are none."""


@dataclass(frozen=True, slots=True)
class CaptionGenerator:
    """A language model with its prompts: speech tokens in, captions out (Eq. 4)."""

    meta: checkpoint.ModelMeta
    prompts: PromptBuilder
    runtime: runtimes.LanguageRuntime

    def options(self, beam_size: int = 1) -> runtimes.DecodeOptions:
        """Greedy or beam search within the model's limits."""
        limits = self.meta.limits
        return runtimes.DecodeOptions(
            beam_size=beam_size, min_length=limits.min_tokens, max_length=limits.max_tokens
        )

    def generate(
        self, inputs: Sequence[StudentInput], *, language: str, options: runtimes.DecodeOptions
    ) -> list[tuple[CaptionHypothesis, ...]]:
        """For each input up to `options.captions` captions, best first."""
        prompts = [
            self.prompts.student(
                self._shown(one.tokens), language=language, act=one.act, plan=one.plan
            )
            for one in inputs
        ]
        return generate_captions(self.runtime, self.prompts.vocabulary, prompts, options)

    def _shown(self, tokens: SpeechTokens) -> SpeechTokens:
        """What the language model reads of speech: of codes the first `SHOWN_S` where it is told
        by a plan what to say of the whole."""
        most = round(SHOWN_S * self.meta.tokenizer.frame_rate_hz)
        if not self.meta.plans or tokens.features is not None or tokens.codes.shape[1] <= most:
            return tokens
        return replace(tokens, codes=tokens.codes[:, :most])


class Captioner:
    """Captions recordings; `aligncap.load` makes one."""

    def __init__(
        self,
        generator: CaptionGenerator,
        preprocessor: Preprocessor,
        *,
        options: runtimes.DecodeOptions,
        workers: int = 1,
        again: "partial[Captioner] | None" = None,
    ) -> None:
        """`workers` recordings are preprocessed at a time when there are several; `again` is the
        call of `load`, model folder first, that another process makes."""
        self.meta = generator.meta
        self._again = again
        self.options = options
        self._generator = generator
        self._preprocessor = preprocessor
        self._workers = workers

    @property
    def generator(self) -> CaptionGenerator:
        """The language model with its prompts."""
        return self._generator

    @cached_property
    def detector(self) -> SpeechDetector:
        """What tells where somebody speaks."""
        return self._preprocessor.detector or SpeechDetector()

    @cached_property
    def signature(self) -> str:
        """The model's name and a hash of its files."""
        name, again = self.meta.name, self._again
        return f"{name}/{checkpoint.model_fingerprint(again.args[0])[:12]}" if again else name

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by its folder: another process opens the model itself."""
        if self._again is None:
            raise DataError(f"{self.meta.name}: was not opened by aligncap.load; open it there")
        return self._again, (), {"options": self.options}

    @overload
    def caption(  # type: ignore[overload-overlap]
        self,
        source: Recording,
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
        baseline: Baseline | None = None,
        style: str = "full",
    ) -> Caption: ...

    @overload
    def caption(
        self,
        source: Iterable[Recording],
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
        baseline: Baseline | None = None,
        style: str = "full",
    ) -> list[Caption]: ...

    def caption(
        self,
        source: Recording | Iterable[Recording],
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
        baseline: Baseline | None = None,
        style: str = "full",
    ) -> Caption | list[Caption]:
        """The caption of a recording, or those of several in their order.

        A recording is a path; the bytes of a sound file, or one opened for reading; a Waveform; an
        array or tensor of samples ([time], [time, channels] or [channels, time]) together with
        `rate_hz`; or a dict with `array` and `sampling_rate`, as Hugging Face's datasets have it.
        Several are a list, a generator or a dataset of any of them.
        With `candidates` above 1, the record holds other captions too. With a `baseline` of the
        speaker, what is high, loud or fast is relative to that. `style` is "full" (a sentence or
        two), "short" (a phrase) or "tts" (a description for a synthesiser), of models that were
        trained with plans.
        Raises AudioError for a recording that cannot be read, NoSpeechError where it has no speech,
        UnknownNameError for a language it does not write: the first (`caption_many` goes on).
        """
        one = is_recording(source)
        sources = [source] if one else several(source)
        # What a generator or a dataset gives is not kept: it may be more than fits into memory.
        kept = list(map(held, sources)) if isinstance(sources, list | tuple) else None
        captions: list[Caption] = []
        for outcome in self.caption_many(
            sources if kept is None else kept,
            rate_hz=rate_hz,
            language=language,
            candidates=candidates,
            evidence=evidence,
            baseline=baseline,
            style=style,
        ):
            if isinstance(outcome, AlignCapError):
                raise outcome
            picture = Drawing(kept[len(captions)], rate_hz) if kept else None
            captions.append(replace(outcome, picture=picture))
        return captions[0] if one else captions

    def baseline(
        self,
        recordings: Recording | Iterable[Recording],
        *,
        rate_hz: int | None = None,
    ) -> Baseline:
        """How a speaker usually sounds, from recordings of theirs: neutral speech at best, with the
        microphone of what is to be captioned. Recordings and `rate_hz` are as `caption` takes them.

        Raises the first recording's error, NoSpeechError where one holds no words.
        """
        measured = []
        sources = [recordings] if is_recording(recordings) else several(recordings)
        for found in self._measure_many(sources, rate_hz):
            if isinstance(found, AlignCapError):
                raise found
            measured.append(found)
        if not measured:
            raise DataError("a baseline needs at least one recording")
        source = f"{len(measured)} recording{'s' * (len(measured) > 1)}"
        return baseline_of(measured, source, tokenizer=self._preprocessor.tokenizer.fingerprint)

    def baselines(
        self,
        recordings: Iterable[Any],
        speakers: Sequence[str | None],
        *,
        kind: str = "speaker",
    ) -> list[Baseline]:
        """For each recording how its speaker usually sounds, from the speaker's other recordings.

        `speakers` are as many as `recordings`, None for one that is not known; `kind` is what
        names them in records ("folder"). Three recordings of a speaker that hold words are needed;
        with fewer the baseline says so, and nothing is relative to it.
        """
        found = self._measure_many(recordings)
        measured = [None if isinstance(one, AlignCapError) else one for one in found]
        if len(measured) != len(speakers):
            counts = f"{len(measured)} recordings, {len(speakers)} speakers"
            raise DataError(f"baselines: {counts}; give one speaker for each recording")
        fingerprint = self._preprocessor.tokenizer.fingerprint
        return baselines_of(measured, speakers, kind=kind, tokenizer=fingerprint)

    def voices(self, recordings: Iterable[tuple[str, Any]]) -> dict[str, Baseline]:
        """How each speaker usually sounds, from pairs of a speaker and a recording of theirs."""
        return voices_of(recordings, self._measure_many, self._preprocessor.tokenizer.fingerprint)

    def _measure_many(
        self, sources: Iterable[object], rate_hz: int | None = None
    ) -> Iterator[Measured | AlignCapError]:
        measure = partial(self._measure, rate_hz=rate_hz)
        with closing(preparing.batches(map(held, sources), measure, self._workers)) as batches:
            for batch in batches:
                yield from batch

    def _measure(self, source: object, rate_hz: int | None) -> Measured | AlignCapError:
        try:
            found = recording(source, rate_hz)
            speech = self._preprocessor.prepare(found)
        except AlignCapError as error:
            return error
        if speech.vocalization is not None:
            name = found.source if isinstance(found, Waveform) else found
            return NoSpeechError(f"{name}: holds {speech.vocalization}, no words")
        return speech.facts, speech.tokens.vector

    def caption_many(
        self,
        sources: Iterable[Any],
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
        baseline: Baseline | None = None,
        style: str = "full",
    ) -> Iterator[Caption | AlignCapError]:
        """For each recording its caption or its error, in order, as they are ready.

        Recordings, `rate_hz` and `baseline` are as `caption` takes them; a `Spoken` is a recording
        with a baseline of its own.
        `sources` is read a little ahead, where there are several cores: some are preprocessed while
        others are captioned, in batches that grow from a few, so that the first caption comes soon.
        """
        if candidates < 1:
            raise RecipeError(f"candidates is {candidates}, must be at least 1")
        # All beams are returned: the emotions they name together give the confidence.
        beams = max(self.options.beam_size, candidates)
        options = replace(self.options, beam_size=beams, captions=beams)
        if baseline is not None:
            sources = (Spoken(held(one), baseline) for one in sources)
        generate = partial(self._generator_of(language, style), options=options)
        settle = partial(settled, generate=generate, language=language)
        outcomes = self._stream(map(held, sources), rate_hz, settle)
        return (
            one
            if isinstance(one, AlignCapError)
            else build_caption(
                chosen(one, language=language),
                one.speech,
                language=language,
                candidates=candidates,
                evidence=evidence,
                model=self.meta.name,
            )
            for one in outcomes
        )

    def segments(
        self,
        source: str | Path,
        *,
        channel: int | None = None,
        transcript: Sequence[Line] = (),
        baseline: Baseline | Literal["own"] | None = None,
        language: str = "en",
        evidence: bool = True,
    ) -> Iterator[Segment]:
        """The utterances of a recording of any length with their captions, and what lies between
        them, in order and as they are ready.

        Of several channels, `channel` is captioned alone, counted from 0. A `transcript` (see
        `captioner.transcripts.read_transcript`) says where to cut; its words are kept beside the
        captions. With a speaker's `baseline` captions are relative to it; with "own" each utterance
        is relative to the others, for recordings or channels of one speaker. The sound is then read
        twice, and some 20 kB are held of each utterance; otherwise memory does not grow with the
        length. Raises AudioError for a recording that cannot be read.
        """
        found = segments(
            self,
            source,
            detector=self.detector,
            channel=channel,
            transcript=transcript,
            baseline=baseline,
            language=language,
            evidence=evidence,
        )
        return joined(found)

    def generate_many(
        self,
        sources: Iterable[Any],
        *,
        rate_hz: int | None = None,
        language: str,
        options: runtimes.DecodeOptions,
        style: str = "full",
    ) -> Iterator[Candidates]:
        """For each recording all captions that `options` ask for, or its error; no caption where
        nobody says words.

        Reads ahead and batches as `caption_many` does.
        """
        generate = partial(self._generator_of(language, style), options=options)
        return self._stream(map(held, sources), rate_hz, generate)

    def _generator_of(self, language: str, style: str) -> "partial[Iterator[Candidates]]":
        """`_generate` for a language and a style; an error where the model has no such."""
        if language not in self.meta.languages:
            raise UnknownNameError("caption language", language, self.meta.languages)
        self.check_style(style)
        return partial(self._generate, language=language, style=style)

    def check_style(self, style: str) -> None:
        """UnknownNameError for an unknown style, RecipeError for one that is not the model's."""
        if style not in STYLES:
            raise UnknownNameError("style of captions", style, STYLES)
        if style != "full" and not self.meta.plans:
            raise RecipeError(
                f"{self.meta.name}: writes captions of style 'full' only, it was trained without "
                "plans; leave the style out, or load another model"
            )

    def _stream(
        self,
        sources: Iterator[object],
        rate_hz: int | None,
        generate: Callable[[list[PreparedSpeech | AlignCapError]], Iterable[Candidates]],
    ) -> Iterator[Candidates]:
        prepare = partial(self._prepare, rate_hz=rate_hz)
        with closing(preparing.batches(sources, prepare, self._workers)) as batches:
            for batch in batches:
                yield from generate(batch)

    def _prepare(self, given: object, rate_hz: int | None) -> PreparedSpeech | AlignCapError:
        source, baseline = given if isinstance(given, Spoken) else (given, None)
        try:
            found = recording(source, rate_hz)
            speech = self._preprocessor.prepare(found, baseline)
        except AlignCapError as error:
            return error
        warn_of_part(found, speech)
        return speech

    def _generate(
        self,
        batch: Sequence[PreparedSpeech | AlignCapError],
        *,
        language: str,
        style: str,
        options: runtimes.DecodeOptions,
        attempt: int = 0,
    ) -> Iterator[Candidates]:
        """The captions of a batch, generated together; errors are handed on in their places. Each
        `attempt` has other plans, and those after the first a wider search."""
        if attempt:
            beams = max(options.beam_size, FURTHER_BEAM_SIZE)
            options = replace(options, beam_size=beams, captions=beams)
        speech = [one for one in batch if isinstance(one, PreparedSpeech) and not one.vocalization]
        told = [_told(self.meta, one, language) for one in speech]
        inputs = [
            StudentInput(
                one.tokens,
                _act(self.meta, one, language, told=heard),
                plan_of(heard, one.tokens, language, style, attempt) if self.meta.plans else "",
            )
            for one, heard in zip(speech, told, strict=True)
        ]
        found = iter(
            self._generator.generate(inputs, language=language, options=options) if inputs else []
        )
        given = zip(told, inputs, strict=True)
        for one in batch:
            if isinstance(one, AlignCapError):
                yield one
                continue
            if one.vocalization is not None:
                yield CaptionCandidates(one, ())
                continue
            hypotheses = next(found)
            heard, asked = next(given)
            yield (
                CaptionCandidates(one, hypotheses, heard, asked.plan)
                if hypotheses
                else runtimes.empty_answer(self.meta.name)
            )


def _act(meta: checkpoint.ModelMeta, speech: PreparedSpeech, language: str, *, told: str) -> str:
    """P_act of the prompt; for a model with plans it may be what is `told` anyway."""
    if meta.plans and meta.act_mode == "heard":
        return told
    return student_acoustic_prompt(
        meta.act_mode, speech.facts, speech.tokens, language, weighed=meta.plans
    )


def _told(meta: checkpoint.ModelMeta, speech: PreparedSpeech, language: str) -> str:
    """What is heard and measured, for a model with plans, whatever of it is in its prompt."""
    if not meta.plans:
        return ""
    return student_acoustic_prompt("heard", speech.facts, speech.tokens, language, weighed=True)


def load(
    name: str | Path = "mini",
    *,
    runtime: str = "auto",
    beam_size: int | None = None,
    threads: int | None = None,
    tokenizer_path: str | Path | None = None,
    seed: int = 0,
    endpoint: runtimes.EndpointSettings | None = None,
) -> Captioner:
    """A captioner: `name` is a built-in model ("mini"), a model folder, or one's name on the hub.

    A name on the hub ("org/name") is looked for in this machine's Hugging Face cache; nothing is
    downloaded. With an `endpoint` the language model runs there, everything else here.

    `threads` is how many cores may be used (all, by default); `tokenizer_path` is where the
    weights of a speech tokenizer are that is not part of the folder; `seed` is that of sampling
    on CTranslate2 (torch takes it from the decode options). Raises UnknownNameError for
    an unknown name, MissingModelError where something of the model is not on this machine,
    DataError where the speech tokenizer is not the one that the model was trained with.
    Where `beam_size` is not given it is 8, or, for a model whose captions follow plans, 1, and 3
    where its speech tokenizer hears no emotion.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    if threads is not None and threads < 0:
        raise RecipeError(f"threads is {threads}; give a number of cores, or leave it out for all")
    folder = checkpoint.find_model(name)
    generator = open_generator(
        folder, runtime=runtime, threads=threads, seed=seed, endpoint=endpoint
    )
    tokenizer = open_speech_tokenizer(folder, generator.meta, tokenizer_path)
    beam_size = beam_size or generator.meta.usual_beams
    return Captioner(
        generator,
        Preprocessor(tokenizer, generator.meta.limits.max_speech_s, SpeechDetector()),
        options=generator.options(beam_size),
        workers=threads or usable_cores(),
        again=partial(
            load,
            folder.absolute(),
            runtime=runtime,
            beam_size=beam_size,
            threads=threads,
            seed=seed,
            tokenizer_path=Path(tokenizer_path).absolute() if tokenizer_path else None,
            endpoint=endpoint,
        ),
    )


def open_generator(
    folder: Path,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    endpoint: runtimes.EndpointSettings | None = None,
) -> CaptionGenerator:
    """The language model of a model folder with its prompts; as `load`, without preprocessing."""
    meta = checkpoint.read_meta(folder)
    vocabulary = checkpoint.load_vocabulary(folder, meta)
    rules = runtimes.ResponseRules.of(vocabulary, meta.limits.stop_characters)
    exported = folder / runtimes.CT2_FOLDER
    language_model: runtimes.LanguageRuntime
    if endpoint is not None:
        language_model = runtimes.EndpointRuntime(endpoint, vocabulary, rules, name=meta.name)
    elif runtime == "torch" or (runtime == "auto" and not exported.is_dir()):
        language_model = _open_torch_runtime(folder, rules)
    elif not exported.is_dir():
        raise MissingModelError(f"{folder}: is not exported; run: aligncap export {folder} OUT")
    else:
        cores = threads or usable_cores()
        weights = exported / "model.bin"
        large = weights.is_file() and weights.stat().st_size > LARGE_MODEL_BYTES
        threads, replicas = (cores, 1) if large else (1, cores)
        language_model = runtimes.CT2Runtime(
            exported, rules, threads=threads, replicas=replicas, seed=seed
        )
    prompts = PromptBuilder(vocabulary, meta.prompts, vectors=meta.connector.vectors)
    return CaptionGenerator(meta, prompts, language_model)


def _open_torch_runtime(folder: Path, rules: runtimes.ResponseRules) -> runtimes.LanguageRuntime:
    try:
        from aligncap.captioner.decoding import TorchRuntime

        return TorchRuntime(checkpoint.load_torch(folder), rules)
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"{folder}: this model needs {error.name}, which is not installed; "
            "run: pip install 'aligncap[train]', or use an exported model"
        ) from error


def open_speech_tokenizer(
    folder: Path, meta: checkpoint.ModelMeta, path: str | Path | None = None
) -> SpeechTokenizer:
    """The tokenizer that the model was trained with, from `path` or the model's folder."""
    encoder = folder / checkpoint.ENCODER_FOLDER
    own = encoder if encoder.is_dir() else folder if meta.tokenizer.name == "builtin" else None
    path = path or own
    try:
        tokenizer = open_tokenizer(meta.tokenizer.name, path, **meta.tokenizer.options)
    except MissingModelError as error:
        if path is not None:
            raise
        raise MissingModelError(
            f"{folder}: hears with {meta.tokenizer.name}, which is not part of it; {error} "
            f"(--tokenizer-weights FOLDER, tokenizer_path in Python), or link it to {encoder}"
        ) from error
    if tokenizer.fingerprint != meta.tokenizer.fingerprint:
        raise DataError(
            f"{folder}: was trained with {meta.tokenizer.name} {meta.tokenizer.fingerprint}, "
            f"this one is {tokenizer.fingerprint}; its tokens mean something else"
        )
    return tokenizer
