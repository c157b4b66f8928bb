import socket
import threading
from collections.abc import Iterator

import pytest

from search.reaching import is_reachable, within
from tests.commands import free_port


@pytest.fixture
def server() -> Iterator[str]:
    """The address of something that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address that nothing listens on."""
    return f"http://127.0.0.1:{free_port()}"


def test_a_server_that_does_not_answer_is_not_waited_for(server: str, nobody: str) -> None:
    assert is_reachable(server)
    assert not is_reachable(nobody)
    assert not is_reachable("http://name.invalid")
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.01, never.wait)
    never.set()
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0)
