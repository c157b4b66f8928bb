import pytest

from core.errors import UserError
from search.serving.server import address_of, listen


def test_the_address_can_be_opened_in_a_browser() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address_of(listening, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        assert address_of(listening, "::1") == f"http://[::1]:{port}/"


def test_a_port_that_is_taken_and_an_address_that_is_elsewhere_are_one_line() -> None:
    with listen("127.0.0.1", 0) as listening, pytest.raises(UserError, match="choose another --port"):
        listen("127.0.0.1", listening.getsockname()[1])
    with pytest.raises(UserError, match="cannot be listened on"):
        listen("192.0.2.1", 0)
