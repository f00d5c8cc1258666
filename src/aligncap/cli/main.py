"""The entry point: runs one command, turns errors into one line and an exit code.

Exit code: 0 all went well, 1 some file could not be used, 2 the command could not be carried out,
130 stopped by Ctrl-C.

The verbs are functions whose parameters are the options of the command line and whose result is
the exit code. Each imports what it needs when it is called, so that `--help` is quick.
"""

import logging
import sys
from typing import Annotated

import typer

from aligncap import __version__
from aligncap.cli import prefer, train
from aligncap.cli.annotate import annotate
from aligncap.cli.caption import caption
from aligncap.cli.console import Console, WarningHandler, write_any_text
from aligncap.cli.evaluate import clues, evaluate, measure
from aligncap.cli.reproduce import reproduce
from aligncap.cli.serve import mcp, serve
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


def _exit(code: int, **_: bool) -> None:
    raise typer.Exit(code)


app = typer.Typer(
    name="aligncap",
    no_args_is_help=True,
    add_completion=False,
    result_callback=_exit,
    rich_markup_mode=None,  # plain help: twice as quick, and it reads the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (
    caption,
    measure,
    clues,
    train.train,
    train.finetune,
    train.tokens,
    train.merge,
    train.export,
    evaluate,
    reproduce,
    annotate,
    serve,
    mcp,
):
    app.command()(_verb)
app.add_typer(train.corpus, name="corpus")
app.add_typer(prefer.app, name="prefer")


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
