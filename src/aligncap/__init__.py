"""AlignCap: captions of how people speak.

    import aligncap
    captioner = aligncap.load("mini")
    print(captioner.caption("speech.wav").text)

Importing the package loads nothing heavy; `load` imports what its model needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligncap.captioner.captioner import Captioner as Captioner
    from aligncap.captioner.captioner import load as load
    from aligncap.errors import AlignCapError as AlignCapError
    from aligncap.values import Caption as Caption

__version__ = "0.1.0"

__all__ = ["AlignCapError", "Caption", "Captioner", "__version__", "load"]

_HOMES = {
    "AlignCapError": "aligncap.errors",
    "Caption": "aligncap.values",
    "Captioner": "aligncap.captioner.captioner",
    "load": "aligncap.captioner.captioner",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aligncap' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
