"""`aligncap serve`: captions over HTTP; `aligncap mcp`: captions as tools of a language model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncap.cli.console import Console
from aligncap.errors import DataError, RecipeError

if TYPE_CHECKING:
    from aligncap.service.label_studio import LabelStudio

Model = Annotated[str, typer.Option(metavar="NAME", help="A built-in model, or a model folder.")]


def serve(
    context: typer.Context,
    model: Model = "mini",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The token clients send; ALIGNCAP_TOKEN of the environment, else."
        ),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Listen beyond this machine without a token.")
    ] = False,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest upload, in MB.")] = 200,
    queue: Annotated[int, typer.Option(min=1, help="Recordings that may wait.")] = 64,
) -> int:
    """Serve captions to HTTP clients, OpenAI's among them (needs the serve extra)."""
    from aligncap.service import serve as service
    from aligncap.service import web

    console: Console = context.obj
    token = _token(console, token_file)
    if token is None and not open_to_all and host not in service.LOOPBACK:
        raise RecipeError(
            f"--host {host}: anybody who reaches it could use it; give --token-file FILE, "
            "or --open if that is meant"
        )
    largest = max_upload_mb * 1_000_000
    settings = service.ServerSettings(
        largest_upload_bytes=largest, waiting=queue, token=token,
        names=service.LOOPBACK if host in service.LOOPBACK else (),
        label_studio=_label_studio(console, largest),
    )  # fmt: skip
    with web.listen(host, port) as listener:
        address = web.address_of(host, listener)
        console.print(
            f"captions at {address}/v1, described at {address}/docs (Ctrl-C ends it)",
            f"for people: {address}/",
        )
        service.serve(lambda: console.load_model(model), listener, settings)
    return 0


def _label_studio(console: Console, largest_bytes: int) -> "LabelStudio":
    """Label Studio's address and key, of the environment."""
    from aligncap.service.label_studio import LabelStudio

    url = console.environment.get("LABEL_STUDIO_URL", "").strip() or None
    if url and not url.startswith(("http://", "https://")):
        raise RecipeError(f"LABEL_STUDIO_URL={url}: must begin with http:// or https://")
    key = console.environment.get("LABEL_STUDIO_API_KEY", "").strip() or None
    return LabelStudio(url=url, key=key, largest_bytes=largest_bytes)


def _token(console: Console, file: Path | None) -> str | None:
    """The token of the file or of the environment; None where there is none."""
    if file is None:
        return console.environment.get("ALIGNCAP_TOKEN", "").strip() or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the token cannot be read ({error})") from error
    if not token:
        raise DataError(f"{file}: is empty; write the token into it")
    return token


def mcp(context: typer.Context, model: Model = "mini") -> int:
    """Caption and measure as tools of an MCP client, over stdio (needs the mcp extra)."""
    from aligncap.service.mcp import mcp_server

    console: Console = context.obj
    mcp_server(lambda: console.load_model(model)).run("stdio")
    return 0
