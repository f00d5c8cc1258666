"""SECap (Xu et al., AAAI 2024): frozen HuBERT → linear → Q-Former → linear → frozen LLaMA.

`QFormerConnector` is what is between the two. As released, the caption's cross-entropy is all that
is minimised (kind "ce"); a recipe of kind "secap" adds the two further terms of the paper:

- contrastive: the mean of a clip's query vectors and its caption, symmetric InfoNCE over the batch;
- mutual information between the query vectors and the transcript, bounded from above by vCLUB
  (Cheng et al., 2020), so that what is heard is not what is said.

The paper's text features are those of a sentence encoder; here they are the mean of the frozen
language model's own embeddings of the text, so that nothing more is loaded.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from aligncap.alignment.examples import Prompter, Sample
from aligncap.alignment.kd import CeSettings, plan_stage
from aligncap.alignment.losses import caption_cross_entropy, symmetric_infonce
from aligncap.alignment.trainer import (
    StageTrainer,
    TaskBatch,
    TrainingTask,
    read_training_rows,
)
from aligncap.captioner.connectors import Connector
from aligncap.captioner.model import CaptionModel, seeded
from aligncap.captioner.prompts import to_torch
from aligncap.errors import RecipeError
from aligncap.recipes import Count, Trainer, recipe_section


class QFormerConnector(Connector):
    """SECap's bridge: queries that read the features by cross-attention, in every second layer."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        queries: int = 32,
        layers: int = 12,
        heads: int = 12,
        inner: int = 768,
        cross_frequency: int = 2,
    ) -> None:
        """`inner` is the Q-Former's width; the defaults are SECap's, the size of BERT-base."""
        super().__init__()
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        self.vectors = queries
        config = Blip2QFormerConfig(
            hidden_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * inner,
            encoder_hidden_size=inner,
            cross_attention_frequency=cross_frequency,
        )
        self.audio_project = nn.Linear(width, inner)
        self.audio_Qformer = Blip2QFormerModel(config)
        self.audio_query_tokens = nn.Parameter(
            torch.empty(1, queries, inner).normal_(std=config.initializer_range)
        )
        self.audio_llama_project = nn.Linear(inner, hidden)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """[clips, queries, hidden]."""
        place = torch.arange(features.shape[1], device=features.device)
        output = self.audio_Qformer(
            query_embeds=self.audio_query_tokens.expand(len(features), -1, -1),
            encoder_hidden_states=self.audio_project(features),
            encoder_attention_mask=(place[None] < lengths[:, None]).long(),
        )
        vectors: Tensor = self.audio_llama_project(output.last_hidden_state)
        return vectors


class Club(nn.Module):
    """The variational upper bound of mutual information, vCLUB: q(y | x), a normal distribution
    whose mean and variance are networks of x."""

    def __init__(self, x_width: int, y_width: int, inner: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(x_width, inner), nn.ReLU(), nn.Linear(inner, y_width), *last)
            for last in ((), (nn.Tanh(),))
        )

    def bound(self, x: Tensor, y: Tensor) -> Tensor:
        """mean log q(y_i | x_i) - mean log q(y_j | x_i), a scalar in nats; x [n, …], y [n, …]."""
        mean, log_variance = self.mean(x), self.log_variance(x)
        own = (y - mean).square()
        every = (y[None] - mean[:, None]).square().mean(1)
        bound: Tensor = ((every - own) / (2 * log_variance.exp())).sum(1).mean()
        return bound

    def negative_log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """-mean log q(y_i | x_i), without the constant: what q is fitted by."""
        mean, log_variance = self.mean(x), self.log_variance(x)
        loss: Tensor = ((y - mean).square() / log_variance.exp() + log_variance).sum(1).mean() / 2
        return loss


@recipe_section
class SecapLossSettings:
    """What is added to the caption's cross-entropy; both 0: as released."""

    contrastive_weight: NonNegativeFloat = 0.0
    """Of InfoNCE between speech and caption."""
    temperature: PositiveFloat = 0.07
    club_weight: NonNegativeFloat = 0.0
    """Of the bound of mutual information between speech and transcript."""
    inner: Count = 256
    """Width of the joint space and of q's networks."""


@recipe_section
class SecapSettings(CeSettings):
    """A recipe of kind "secap"."""

    terms: SecapLossSettings = field(default_factory=SecapLossSettings)


class SecapTraining(nn.Module):
    """A model with a Q-Former, and what the further terms need; only the model is kept."""

    def __init__(self, model: CaptionModel, settings: SecapLossSettings, *, seed: int) -> None:
        super().__init__()
        if not isinstance(model.connector, QFormerConnector):
            raise RecipeError(
                'kind "secap" needs a Q-Former; give model.connector.name = "qformer"'
            )
        self.model = model
        width = model.connector.audio_llama_project.in_features
        with seeded(seed):
            self.speech = nn.Linear(width, settings.inner)
            self.caption = nn.Linear(model.hidden, settings.inner)
            self.club = Club(width, model.hidden, settings.inner)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def text_features(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """The mean of the language model's embeddings of each text, [texts, hidden]."""
        table: nn.Module = self.model.bare.get_input_embeddings()
        with torch.no_grad():
            found = [table(torch.tensor(ids or [0], device=self.device)).mean(0) for ids in texts]
        return torch.stack(found).float()


@dataclass(frozen=True, slots=True)
class SecapTexts:
    """Of each clip of a batch, as ids."""

    captions: list[tuple[int, ...]]
    """The first of its captions."""
    transcripts: list[list[int]]
    """What is said; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class SecapObjective:
    """The caption's cross-entropy, and the further terms as they are weighed."""

    settings: SecapLossSettings
    smoothing: float = 0.0
    """Of the captions' labels, in training only."""

    def training_losses(
        self, module: SecapTraining, batch: TaskBatch[SecapTexts]
    ) -> dict[str, Tensor]:
        """{"loss", "ce"}, and "contrastive" and "club" as far as they have a weight."""
        connector: Any = module.model.connector
        with inputs_of(connector.audio_llama_project) as seen:
            logits = module.model.text_logits(to_torch(batch.shared, module.device))
        speech = seen[0].mean(1).float()
        targets = torch.from_numpy(batch.shared.target_ids).to(logits.device)
        share = self.smoothing if module.training else 0.0
        parts = {"ce": caption_cross_entropy(logits, targets, smoothing=share)}
        loss = parts["ce"]
        settings, texts = self.settings, batch.targets
        if settings.contrastive_weight:
            captions = module.caption(module.text_features(texts.captions))
            heard, told = (
                functional.normalize(one, dim=1) for one in (module.speech(speech), captions)
            )
            scale = -math.log(settings.temperature)
            parts["contrastive"] = symmetric_infonce(heard, told, scale)
            loss = loss + settings.contrastive_weight * parts["contrastive"]
        known = [place for place, ids in enumerate(texts.transcripts) if ids]
        if settings.club_weight:
            parts["club"] = loss.new_zeros(())
            if len(known) > 1:
                said = module.text_features([texts.transcripts[place] for place in known])
                fit, parts["club"] = club_losses(module.club, speech[known], said)
                loss = loss + settings.club_weight * parts["club"] + fit
        return {"loss": loss, **parts}

    def validation_losses(
        self, module: SecapTraining, batch: TaskBatch[SecapTexts]
    ) -> dict[str, Tensor]:
        """The same."""
        return self.training_losses(module, batch)

    def count(self, batch: TaskBatch[SecapTexts]) -> int:
        """Response tokens."""
        return len(batch.shared.target_ids)


def club_losses(club: Club, speech: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """What q is fitted by, whose gradient does not reach the speech; and the bound, whose gradient
    does not reach q."""
    fit = club.negative_log_likelihood(speech.detach(), said)
    fixed = {name: one.detach() for name, one in club.named_parameters()}
    bound = torch.func.functional_call(_Bound(club), _below("club", fixed), (speech, said))
    return fit, bound


class _Bound(nn.Module):
    """A bound as a module's forward."""

    def __init__(self, club: Club) -> None:
        super().__init__()
        self.club = club

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.club.bound(x, y)


def _below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in tensors.items()}


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, what the layer is given, call by call."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def train_secap(settings: SecapSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train the connector; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    trainer = StageTrainer(settings, output, kind="secap", data=data)
    task = secap_task(settings, trainer)
    module = SecapTraining(trainer.model, settings.terms, seed=settings.training.seed)
    act = settings.student.act_mode
    return trainer.run(task, acoustic_prompt_source=act, resume=resume, module=module)


def secap_task(settings: SecapSettings, trainer: StageTrainer) -> TrainingTask[SecapTexts]:
    """The student's rows, and the texts of the further terms."""
    prompter: Prompter = trainer.prompter
    encode = trainer.model.vocabulary.encode_text

    def texts(samples: Sequence[Sample]) -> SecapTexts:
        responses: Iterable[tuple[int, ...]] = (
            settings.row(prompter, one).responses[0] for one in samples
        )
        said = [trainer.rows[one.row].transcript for one in samples]
        return SecapTexts(list(responses), [encode(text) for text in said])

    return TrainingTask(
        rows_of=lambda sample: [settings.row(prompter, sample)],
        objective=SecapObjective(settings.terms, smoothing=settings.label_smoothing),
        targets=texts,
    )


SECAP = Trainer(SecapSettings, plan_stage, train_secap)
