"""`annotate` carried by engines that others wrote: Ray Data and datatrove.

    ray.data.read_parquet(…).map_batches(RayAnnotator, batch_format="pyarrow", concurrency=4)
    LocalPipelineExecutor([JsonlReader(…), DatatroveAnnotator(), JsonlWriter(…)], tasks=4)

Both open the model once an actor or process. Neither library is imported here: Ray calls a class
with tables, and datatrove takes a step that is a callable. Speakers need all rows of theirs: see
`speaker_statistics` and `complete`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aligncap.tts.annotator import (
    AnnotateSettings,
    Annotator,
    complete,
    merged,
    open_captioner,
)
from aligncap.tts.measures import Row
from aligncap.tts.sources import PARTS
from aligncap.tts.tables import Kinds, note, schema_of, table_of

OpenModel = Callable[[AnnotateSettings], Any]


class RayAnnotator:
    """A class for `ray.data.Dataset.map_batches`, with `batch_format="pyarrow"`."""

    def __init__(
        self, settings: AnnotateSettings | None = None, open_model: OpenModel = open_captioner
    ) -> None:
        """Opens the model, once an actor."""
        self._annotator = Annotator(settings, open_model)

    def __call__(self, table: Any) -> Any:
        """A pyarrow table with the columns of `annotate`; those that ours are called like become
        `input_…`."""
        settings = self._annotator.settings
        rows = table.to_pylist()
        found = list(self._annotator.columns(rows))
        kinds: Kinds = {}
        for one in found:
            note(kinds, one)
        schema = schema_of({one.name: one.type for one in table.schema}, settings, kinds)
        done = (
            complete(merged(row, one, settings), settings=settings)
            for row, one in zip(rows, found, strict=True)
        )
        return table_of(schema, list(done)).replace_schema_metadata(None)


@dataclass(frozen=True)
class DatatroveAnnotator:
    """A step of a datatrove pipeline: `metadata` of each document gains the columns of `annotate`.

    The recording is the document's first medium (its bytes, or its path or URL of a file), or is
    in its metadata as in a row; its text is the transcript.
    """

    settings: AnnotateSettings | None = None
    open_model: OpenModel = open_captioner

    def __call__(self, data: Iterable[Any], *_: int, **__: int) -> Iterator[Any]:
        """The documents with their columns, in order."""
        annotator: Annotator | None = None
        documents = iter(data)
        while part := list(islice(documents, PARTS)):
            annotator = annotator or Annotator(self.settings, self.open_model)
            rows = annotator([_row_of(document) for document in part])
            for document, row in zip(part, rows, strict=True):
                document.metadata = {
                    name: value
                    for name, value in row.items()
                    if name in document.metadata or name not in _OF_DOCUMENT
                }
                yield document


_OF_DOCUMENT = ("id", "text", "audio")
"""What a row has of the document itself."""


def _row_of(document: Any) -> Row:
    row = {"id": document.id, "text": document.text or None, **document.metadata}
    for medium in getattr(document, "media", None) or ():
        if medium.media_bytes is not None:
            return {**row, "audio": {"bytes": medium.media_bytes, "path": medium.path}}
        return {**row, "audio": medium.path or medium.url}
    return row
