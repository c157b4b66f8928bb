"""The command that shows a trained model as a local page."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from core.terminal.console import say
from search.model_cli import BackboneOption, CacheOption, ModelArgument, open_index, read_texts

app = typer.Typer()


@app.command(epilog="Example: crossmodal serve output/demo/final --index output/demo-data/images/test --port 8000")
def serve(
    model: ModelArgument,
    index: Annotated[Path, typer.Option(help="Folder of pictures to search; they are indexed once.")],
    texts: Annotated[
        Path | None, typer.Option(help="File with a text on each line, to be found for a picture.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine alone can connect.")] = (
        "127.0.0.1"
    ),
    backbone: BackboneOption = None,
    cache_dir: CacheOption = None,
) -> None:
    """Serve a page that searches pictures by a sentence, and texts by a picture, until Ctrl-C."""
    from core.errors import UserError

    try:
        from search.serving.app import create_app
        from search.serving.server import address_of, listen, server_of
    except ImportError:
        raise UserError("fastapi or uvicorn is not installed", how="pip install 'crossmodal-search[serve]'") from None
    from core.inference.loading import load_model
    from core.inference.text_index import TextIndex
    from search.serving.guard import is_loopback
    from search.serving.site import Site

    index = index.expanduser()
    lines = None if texts is None else read_texts(texts)
    with listen(host, port) as listening:  # before minutes of indexing
        loaded = load_model(model, backbone=backbone)
        pictures = open_index(loaded, index, cache_dir)
        found = None if lines is None else TextIndex.of(loaded, lines)
        loaded.encoder  # noqa: B018 (the backbone is loaded now, not for the first question)
        if not is_loopback(host):
            say(f"anyone who can reach {host} can search and see these pictures: there is no password", style="yellow")
        site = Site(loaded, pictures, found, title=model, folder=index)
        served = server_of(create_app(site, host))
        say(f"{len(pictures):,} pictures of {index}: {address_of(listening, host)} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            served.run(sockets=[listening])
