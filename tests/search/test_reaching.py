import threading

import pytest

from search.reaching import is_reachable, within


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
