"""What a dry run says of making training rows; in the shape of `planning`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from aligncap.corpora import Manifests, is_validation
from aligncap.speech.encoder_checkpoint import load_encoder
from aligncap.speech.encoder_planning import feature_bytes
from aligncap.training.needs import MANIFEST_CURE, needed_path, table_of


def plan_rows(
    manifests: Sequence[Path], *, encoder: Path, features: Path, views: int
) -> Mapping[str, object]:
    """The plan of a recipe; nothing trains. What the rows take on disk depends on their captions
    and is not told."""
    needed = [
        *(needed_path("manifest", path, cure=MANIFEST_CURE) for path in manifests),
        needed_path("built-in encoder", encoder, cure="train it with a recipe of kind 'encoder'"),
    ]
    parameters = None
    if encoder.exists():
        count = sum(one.numel() for one in load_encoder(encoder).parameters())
        parameters = {"total": count, "trained": 0, "groups": {}}
    return {
        "loads": table_of(needed),
        "parameters": parameters,
        "memory_bytes": None,
        "disk_bytes": _disk(manifests),
        "assumed": {},
        "notes": [
            _clips(manifests, views),
            f"features and facts are read from {features}, and what is missing is measured into it",
        ],
    }


def _are_here(manifests: Sequence[Path]) -> bool:
    return all(path.exists() for path in manifests)


def _disk(manifests: Sequence[Path]) -> Mapping[str, int | None]:
    stored = feature_bytes(Manifests(manifests)) if _are_here(manifests) else None
    return {"features": stored, "total": stored}


def _clips(manifests: Sequence[Path], views: int) -> str:
    if not _are_here(manifests):
        return "a manifest is not here, so it is not known how many rows there will be"
    counts = [0, 0]
    for one in Manifests(manifests):
        counts[is_validation(one)] += 1
    train, held_out = counts
    return (
        f"{train:,} clips of {views} views and {held_out:,} of validation speakers as they are: at "
        f"most {train * views + held_out:,} rows"
    )
