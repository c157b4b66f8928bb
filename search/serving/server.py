"""Listening for `crossmodal serve`, until Ctrl-C."""

import socket

import uvicorn

from core.errors import UserError
from search.serving.guard import Application

GRACE_S = 2
"""Seconds that answers under way get at the end."""
CONNECTIONS = 64


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Args:
        port: 0 for any free one.
    Raises:
        UserError: the address is taken, or not one of this machine.
    """
    if not host.strip("[] "):
        raise UserError("names no address", where="--host", how="write 127.0.0.1, or 0.0.0.0 for every address")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be looked up
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot be listened on ({reason})", where=f"{host}:{port}", how="choose another --port or --host"
        ) from None


def address_of(listening: socket.socket, host: str) -> str:
    """What to open in a browser."""
    port = listening.getsockname()[1]
    return f"http://[{host.strip('[]')}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def server_of(application: Application) -> uvicorn.Server:
    """A server that answers on the sockets that its `run` is given."""
    config = uvicorn.Config(
        application,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
    )
    return uvicorn.Server(config)
