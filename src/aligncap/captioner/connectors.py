"""Connectors: what turns a speech encoder's features into vectors among a language model's own.

A captioning system is sound → a prompt → a language model → captions. Where the prompt holds speech
as vectors, it is ids in which a placeholder stands for each vector; the model embeds the ids and
puts the connector's vectors in their places. A connector is a module of torch that is trained or
frozen with the language model, and saved beside it; the encoder before it is frozen, and its
features are cached (`tokenizers.cache`).

A connector is opened by name: one of `CONNECTORS`, or one that an installed package names under
the entry point `aligncap.connectors`.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.captioner.prompts import ConnectorMeta
from aligncap.errors import DataError, MissingModelError, UnknownNameError
from aligncap.foreign import AGAIN, Shapes, check_tensors, reading
from aligncap.training.pretrained import check_finite

CONNECTORS: Mapping[str, str] = {
    "htsat": "aligncap.baselines.htsat_bart:HtsatConnector",
    "linear": "aligncap.captioner.connectors:LinearConnector",
    "mapper": "aligncap.baselines.noaudiocap:PrefixMapper",
    "qformer": "aligncap.baselines.secap:QFormerConnector",
}
"""Name → module and class of a `Connector`."""

ENTRY_POINTS = "aligncap.connectors"

CONNECTOR_FILE = "connector.safetensors"
"""Of a model folder: the connector's weights."""


class Connector(nn.Module):
    """From features to vectors of the language model's width.

    A class of its own takes the two widths and, by keyword, options that are whole numbers.
    """

    vectors: int = 0
    """Vectors that a clip becomes; 0: one for each frame."""

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """`features` [clips, frames, width], of each clip the first `lengths` [clips], to vectors
        [clips, `vectors`, hidden] or [clips, frames, hidden]."""
        raise NotImplementedError


class LinearConnector(Connector):
    """Each frame through one linear layer, as in LLaVA."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """[clips, frames, hidden]."""
        del lengths
        projected: Tensor = self.project(features)
        return projected


def open_connector(meta: ConnectorMeta, hidden: int) -> Connector:
    """A connector with fresh weights, to a language model of that width.

    UnknownNameError for a name or an option that is not known, MissingModelError where a library
    is missing.
    """
    found = {one.name: one.value for one in entry_points(group=ENTRY_POINTS)} | dict(CONNECTORS)
    if meta.name not in found:
        raise UnknownNameError("connector", meta.name, found)
    module, _, name = found[meta.name].partition(":")
    try:
        kind: Any = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"the connector {meta.name!r} needs {error.name}, which is not installed"
        ) from error
    known = [
        one.name
        for one in signature(kind).parameters.values()
        if one.kind is Parameter.KEYWORD_ONLY
    ]
    for option in meta.options:
        if option not in known:
            raise UnknownNameError(f"option of the {meta.name} connector", option, known)
    connector: Connector = kind(meta.width, hidden, **meta.options)
    return connector


def embedding_width(causal_lm: Any) -> int:
    """The length of a language model's embeddings: what a connector has to give."""
    return int(causal_lm.get_input_embeddings().weight.shape[1])


def read_connector(folder: Path, meta: ConnectorMeta, causal_lm: Any) -> Connector | None:
    """The connector of a model folder to its language model; None where it has none."""
    if not meta.name:
        return None
    connector = open_connector(meta, embedding_width(causal_lm))
    load_connector(connector, folder / CONNECTOR_FILE)
    return connector


def save_connector(connector: Connector, folder: Path) -> None:
    """Write its weights into a model folder."""
    state = {name: value.detach().cpu().clone() for name, value in connector.state_dict().items()}
    save_file(state, folder / CONNECTOR_FILE)


def load_connector(connector: Connector, path: Path) -> None:
    """Read weights into a connector; MissingModelError where the file is not there, DataError names
    the first weight that does not fit."""
    if not path.is_file():
        raise MissingModelError(f"{path}: no such file of a connector; save the model again")
    wanted = {name: tuple(one.shape) for name, one in connector.state_dict().items()}
    check_fit(path, check_tensors(path, hint=AGAIN), wanted)
    with reading(path, hint=AGAIN):
        connector.load_state_dict(load_file(path))
        check_finite(connector)


def check_fit(path: Path, found: Shapes, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """DataError that names the first weight of a file that is missing, of another shape, or more
    than is wanted."""
    for name in wanted:
        if name not in found:
            raise DataError(f"{path}: lacks {name}; {AGAIN}")
        if tuple(found[name]) != wanted[name]:
            raise DataError(
                f"{path}: {name} has the shape {tuple(found[name])}, not {wanted[name]}; {AGAIN}"
            )
    for name in found:
        if name not in wanted:
            raise DataError(f"{path}: holds {name}, which the model has not; {AGAIN}")


def embed(
    embedding: nn.Module,
    connector: Connector,
    ids: Tensor,
    placeholder: int,
    features: Tensor | None,
    lengths: Tensor | None,
) -> Tensor:
    """Ids [rows, T] embedded [rows, T, hidden], with the connector's vectors in the places of
    placeholders. DataError where there are not as many of them as vectors."""
    holes = ids == placeholder
    found: Tensor = embedding(ids.masked_fill(holes, 0))
    if features is None or lengths is None:
        if bool(holes.any()):
            raise DataError("a prompt asks for speech as vectors and brings no features")
        return found
    vectors: Tensor = connector(features, lengths)
    if not connector.vectors:
        place = torch.arange(vectors.shape[1], device=vectors.device)
        vectors = vectors[place[None] < lengths[:, None]]
    flat = vectors.reshape(-1, vectors.shape[-1])
    if len(flat) != int(holes.sum()):
        raise DataError(
            f"prompts have {int(holes.sum())} places for {len(flat)} vectors of speech; build them "
            "with the connector's own number"
        )
    return found.masked_scatter(holes[..., None], flat.to(found))
