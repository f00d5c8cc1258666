"""The errors a user can put right.

    AlignCapError
    ├── AudioError          a sound file that cannot be read or used
    │   └── NoSpeechError   a sound file in which nobody speaks
    ├── DataError           a manifest, caption or cache that does not hold what it should
    ├── RecipeError         a setting that is unknown or out of range
    ├── UnknownNameError    something asked for by a name that is not in its table
    ├── MissingModelError   a model or library that is not on this machine
    ├── EndpointError       a server of a language model that cannot be asked
    ├── JudgeError          a judging model that cannot be asked
    ├── LostProcessError    a run of several processes of which one died
    └── InterruptedRunError a run stopped by the user, with what is done kept

Each message is one line that names the thing, the place and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class AlignCapError(Exception):
    """Something that the user can put right; printed as one line, never as a traceback."""


class AudioError(AlignCapError):
    """A sound file that cannot be read or used."""


class NoSpeechError(AudioError):
    """A sound file in which nobody speaks: there is nothing to caption."""


class DataError(AlignCapError):
    """A manifest, caption or cache that does not hold what it should."""


class RecipeError(AlignCapError):
    """A setting of a recipe that is unknown or out of range."""


class MissingModelError(AlignCapError):
    """A model or an optional library that is not on this machine."""


class EndpointError(AlignCapError):
    """A server of a language model that cannot be asked."""


class JudgeError(AlignCapError):
    """A judging model that cannot be asked; the replies it gave are kept."""


class LostProcessError(AlignCapError):
    """A run of several processes of which one died; the message says what is kept."""


class InterruptedRunError(AlignCapError):
    """A run that the user stopped; the message says how to go on."""


class UnknownNameError(AlignCapError):
    """Something is asked for by a name that is not in its table."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
        super().__init__(f"no {kind} called {name!r}{hint}")
