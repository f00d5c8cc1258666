"""The contrastive stage of a system whose prompt holds vectors (HTSAT-BART): what hears, a
connector, is trained further against captions' vectors in a pretrained space, which stay as they
are.

It is a recipe of kind "joint" with a section `[model.tower]`. Its folder `model` holds what a
recipe of the next stage names as `model.connector.weights`:

    connector.safetensors
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aligncap.alignment.clap import ClapSpace
from aligncap.alignment.init_model import ConnectorSettings, new_connector
from aligncap.alignment.joint_features import open_space
from aligncap.alignment.space import TrainedSpace
from aligncap.captioner.connectors import Connector, save_connector
from aligncap.captioner.model import seeded
from aligncap.captioner.prompts import Prompt, padded_features
from aligncap.errors import DataError, RecipeError
from aligncap.recipes import Count, recipe_section
from aligncap.storage import atomic_folder
from aligncap.values import SpeechTokens


@recipe_section
class TowerSettings:
    """A connector that is trained, and the space that it is trained against."""

    space: Path
    """Folder of a CLAP or of a space of ours, whose text tower is frozen."""
    connector: ConnectorSettings
    """Its prompt is of no use here."""
    hidden: Count = 768
    """Length of the connector's vectors: that of the language model which it is for (BART-base)."""
    from_clap: bool = False
    """Whether an HTSAT begins with the weights of the CLAP's own."""


class AudioTower(TrainedSpace):
    """Features → a connector's vectors → their mean → two layers → one vector of unit length; texts
    have the vectors of another space."""

    def __init__(self, connector: Connector, hidden: int, texts: Any) -> None:
        """`texts` is a joint space or a CLAP, no part of this module."""
        super().__init__(texts.width)
        self.connector = connector
        self.project = nn.Sequential(
            nn.Linear(hidden, self.width), nn.ReLU(), nn.Linear(self.width, self.width)
        )
        self._embed_texts = texts.embed_texts
        self._known: dict[str, Tensor] = {}

    def hear(self, clips: Sequence[SpeechTokens]) -> Tensor:
        """Vectors of clips that have features, [clips, width]."""
        given = padded_features([Prompt((), clip.features) for clip in clips])
        features, lengths = (torch.from_numpy(one).to(self.device) for one in given.values())
        vectors: Tensor = self.connector(features, lengths)
        if self.connector.vectors:
            mean = vectors.mean(1)
        else:
            inside = torch.arange(vectors.shape[1], device=self.device) < lengths[:, None]
            mean = (vectors * inside[..., None]).sum(1) / lengths[:, None]
        return functional.normalize(self.project(mean), dim=1)

    def read(self, texts: Sequence[str]) -> Tensor:
        """The frozen vectors of texts, [texts, width]; each is computed once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= zip(new, torch.from_numpy(self._embed_texts(new)), strict=True)
        return torch.stack([self._known[text] for text in texts]).to(self.device)

    def save(self, folder: Path) -> None:
        """Write the connector."""
        with atomic_folder(folder) as partial:
            save_connector(self.connector, partial)


def new_tower(settings: TowerSettings, width: int, *, seed: int) -> AudioTower:
    """The tower to train, of features of that width.

    RecipeError where the rows hold none, or where an HTSAT is to begin with a CLAP's and either has
    none; DataError where those differ.
    """
    connector = new_connector(settings.connector, width, settings.hidden, seed=seed)
    texts = open_space(settings.space)
    if settings.from_clap:
        begin_with(connector, texts, settings.space)
    with seeded(seed):
        return AudioTower(connector, settings.hidden, texts)


def begin_with(connector: Connector, texts: object, folder: Path) -> None:
    """Give a connector's HTSAT the weights of a CLAP's."""
    theirs = texts.htsat if isinstance(texts, ClapSpace) else None
    own: Any = getattr(connector, "htsat", None)
    if theirs is None or own is None:
        raise RecipeError(
            f"{folder}: from_clap needs an HTSAT here (LAION's CLAP, or Microsoft's of 2023) and "
            'in the connector (name = "htsat"); leave from_clap out'
        )
    given, wanted = (
        {name: tuple(one.shape) for name, one in model.state_dict().items()}
        for model in (theirs, own)
    )
    for name in {**wanted, **given}:
        if given.get(name) != wanted.get(name):
            raise DataError(
                f"{folder}: {name} of its HTSAT is {given.get(name)}, of the connector's "
                f"{wanted.get(name)}; give the connector's options as the CLAP has them"
            )
    own.load_state_dict(theirs.state_dict())
