"""The entry point: runs one command, turns errors into one line and an exit code.

Exit code: 0 all went well, 1 some file could not be used, 2 the command could not be carried out,
130 stopped by Ctrl-C.
"""

import sys

from aligncap.cli import corpus, prefer
from aligncap.cli.console import Console
from aligncap.cli.verbs import app, evaluate, export, merge, tokens
from aligncap.errors import AlignCapError, InterruptedRunError

app.add_typer(corpus.app, name="corpus")
app.add_typer(prefer.app, name="prefer")

OWN_ERROR = 2
INTERRUPTED = 130

EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "accelerate": "train",
    "safetensors": "train",
    "onnx": "train",
    "onnxscript": "train",
    "jieba": "zh",
    "fastapi": "serve",
    "uvicorn": "serve",
    "opensmile": "dev",
    "sklearn": "dev",
}
"""Which extra brings a library that the base install does not have."""


app.command()(tokens)
app.command()(merge)
app.command()(export)
app.command()(evaluate)


def main(arguments: list[str], *, world: Console | None = None) -> int:
    """Run one command and return its exit code.

    What the user can put right is one line on standard error, never a traceback. `world` is what
    the command sees of the outside (streams, models); the real one if not given.
    """
    world = world or Console()
    try:
        app(arguments, prog_name="aligncap", obj=world)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except InterruptedRunError as error:
        world.say(str(error))
        return INTERRUPTED
    except AlignCapError as error:
        world.say(str(error))
        return OWN_ERROR
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        world.say(f"this needs {library}: pip install 'aligncap[{EXTRA_OF[library]}]'")
        return OWN_ERROR
    except OSError as error:  # a full disk, a lost drive
        world.say(f"{error.filename or 'writing'}: {error.strerror or error}")
        return OWN_ERROR
    return 0


def run() -> None:
    """The entry point `aligncap`."""
    sys.exit(main(sys.argv[1:]))
