"""The entry point: runs one command, turns errors into one line and an exit code.

Exit code: 0 all went well, 1 some file could not be used, 2 the command could not be carried out,
130 stopped by Ctrl-C.

The verbs are functions whose parameters are the options of the command line and whose result is
the exit code. A verb's module is imported when the verb is asked for, and imports what it needs
when it is called, so that `--help` is quick.
"""

import logging
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from aligncap import __version__
from aligncap.cli.console import Console, WarningHandler, write_any_text
from aligncap.errors import AlignCapError, InterruptedRunError

COULD_NOT = 2
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
    "prometheus_client": "serve",
    "mcp": "mcp",
    "pyarrow": "tts",
    "g2p": "tts",
    "opensmile": "dev",
    "sklearn": "dev",
}
"""Which extra brings a library that the base install does not have."""


VERBS = {
    "caption": (
        "caption:caption",
        "Caption recordings: one sentence for each file, or for each utterance of long ones.",
    ),
    "measure": (
        "evaluate:measure",
        "Measure pitch, loudness, pace and voice quality; needs no model.",
    ),
    "clues": (
        "evaluate:clues",
        "Find the emotional clues of a caption: what it says of the voice.",
    ),
    "train": ("train:train", "Train what a recipe describes (needs the train extra)."),
    "finetune": (
        "train:finetune",
        "Adapt a model to clips of your own with labels or captions, and say what it gained.",
    ),
    "tokens": ("train:tokens", "Turn the speech of a manifest into tokens, once, for training."),
    "merge": (
        "train:merge",
        "Merge a trained model for transformers and vLLM (needs the train extra).",
    ),
    "export": (
        "train:export",
        "Make a model that captions without torch from a trained one (needs the train extra).",
    ),
    "evaluate": (
        "evaluate:evaluate",
        "Score captions against references, each number with its interval and signature.",
    ),
    "reproduce": (
        "reproduce:reproduce",
        "Make tables and figures of the paper: train, caption, score what is missing "
        "(needs the train extra).",
    ),
    "annotate": (
        "annotate:annotate",
        "Annotate a corpus for text-to-speech: captions, numbers, texts (needs the tts extra).",
    ),
    "serve": (
        "serve:serve",
        "Serve captions to HTTP clients, OpenAI's among them (needs the serve extra).",
    ),
    "mcp": (
        "serve:mcp",
        "Caption and measure as tools of an MCP client, over stdio (needs the mcp extra).",
    ),
    "corpus": (
        "train:corpus",
        "Corpora as shipped, to manifests: prepare, split, and look for faults.",
    ),
    "prefer": (
        "prefer:app",
        "Prefer captions: candidates, judges, pairs, and people's choices, in one store.",
    ),
}
"""Where each verb is below `aligncap.cli`, and how its help begins."""

PLAIN: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,  # plain help: twice as quick, and it reads the same in a pipe
    "pretty_exceptions_enable": False,
}


class _Verbs(TyperGroup):
    """Opens a verb when it is asked for; until then a stand-in has its name and short help."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, opened(str(name)), rest


def opened(name: str) -> Any:
    """The command of a verb, or the group of several."""
    module, _, function = VERBS[name][0].partition(":")
    verb = getattr(import_module(f"aligncap.cli.{module}"), function)
    if not isinstance(verb, typer.Typer):
        alone = typer.Typer(**PLAIN)
        alone.command(name)(verb)
        verb = alone
    return get_command(verb)


def _exit(code: int, **_: bool) -> None:
    raise typer.Exit(code)


def _stand_in() -> None:
    """Never called."""


app = typer.Typer(
    name="aligncap",
    cls=_Verbs,
    no_args_is_help=True,
    result_callback=_exit,
    context_settings={"help_option_names": ["-h", "--help"]},
    **PLAIN,
)
for _name, (_, _help) in VERBS.items():
    app.command(_name, help=_help)(_stand_in)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"aligncap {__version__}")
        raise typer.Exit


@app.callback()
def aligncap(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and stop."
        ),
    ] = False,
) -> None:
    """Say in a sentence how somebody speaks: emotion, pitch, loudness, pace, voice."""


def main(arguments: list[str], *, console: Console | None = None) -> int:
    """Run one command and return its exit code.

    What the user can put right is one line on standard error, never a traceback. `console` has the
    streams and models of the command; the real ones if not given.
    """
    console = console or Console()
    warnings = WarningHandler(console)
    logging.getLogger("aligncap").addHandler(warnings)
    try:
        app(arguments, prog_name="aligncap", obj=console)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except AlignCapError as error:
        console.log(str(error))
        return INTERRUPTED if isinstance(error, InterruptedRunError) else COULD_NOT
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        console.log(f"this needs {library}: pip install 'aligncap[{EXTRA_OF[library]}]'")
        return COULD_NOT
    except OSError as error:  # a full disk, a lost drive
        console.log(f"{error.filename or 'writing'}: {error.strerror or error}")
        return COULD_NOT
    finally:
        logging.getLogger("aligncap").removeHandler(warnings)
    return 0


def run() -> None:
    """The entry point `aligncap`."""
    write_any_text(sys.stdout, sys.stderr)
    sys.exit(main(sys.argv[1:]))
