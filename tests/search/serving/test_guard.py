import pytest

from search.serving.guard import Guard, is_loopback


async def nothing(*_: object) -> None: ...


LOCAL = Guard(nothing, "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_names_of_this_machine_are_its_own(host: str) -> None:
    assert LOCAL.is_own(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1:8000", "[::1", "localhost.", "a@b"],
)
def test_other_names_are_not(host: str) -> None:
    assert not LOCAL.is_own(host)


def test_a_server_for_others_answers_under_addresses_and_its_own_name_only() -> None:
    open_to_all, named = Guard(nothing, "0.0.0.0"), Guard(nothing, "lab.example")
    assert open_to_all.is_own("10.0.0.1:8000")
    assert not open_to_all.is_own("evil.example")
    assert named.is_own("lab.example:8000")
    assert not named.is_own("evil.example")


def test_only_the_page_itself_may_be_linked_from_elsewhere() -> None:
    linked = {"host": "127.0.0.1:8000", "sec-fetch-site": "cross-site"}
    assert LOCAL.refusal(linked, page=True) is None
    assert LOCAL.refusal(linked, page=False) is not None
    own = {"host": "127.0.0.1:8000", "sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"}
    assert LOCAL.refusal(own, page=False) is None
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
        assert LOCAL.refusal(own | {"origin": origin}, page=True) is not None


def test_loopback_by_address_or_name() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "lab.example")))
