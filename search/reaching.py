"""What may hang: other machines, and calls that ask them."""

import socket
import threading
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

Result = TypeVar("Result")
ANSWERS_WITHIN_S = 3.0


def is_reachable(address: str) -> bool:
    """Whether a server takes connections; looking up its name counts towards the time limit."""
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)

    def connect() -> bool:
        with socket.create_connection((host_of(address), port), timeout=ANSWERS_WITHIN_S):
            return True

    try:
        return within(ANSWERS_WITHIN_S, connect)
    except (OSError, UnicodeError):
        return False


def host_of(address: str) -> str:
    return urlsplit(address).hostname or address


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """The result of a call that may hang; it is left behind in its thread then.

    Raises:
        TimeoutError: it took longer.
        Exception: what the call raised.
    """
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
