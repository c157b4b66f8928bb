"""Over real HTTP, and in a real browser."""

import http.client
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from core import ImageIndex
from search.serving.site import MOST_UPLOADED_BYTES
from tests.browser import Page, browser, find_browser
from tests.commands import wait_until
from tests.search.serving.conftest import TEXTS

CHROMIUM = find_browser()
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
PHONE, DESK = 400, 1400


def ask(
    address: str, path: str, *, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and content of an answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    try:
        connection.request(method, f"/{path}", body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def told(answer: tuple[int, dict[str, str], bytes], status: int = 200) -> Any:
    assert answer[0] == status, answer
    return json.loads(answer[2])


def test_a_sentence_finds_pictures_that_can_be_seen(address: str) -> None:
    found = told(ask(address, f"search?text={quote(TEXTS[0])}&top=3"))["answers"]
    assert len(found) == 3
    status, headers, content = ask(address, f"pictures/{found[0]['picture']}")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "JPEG"


def test_an_uploaded_picture_finds_texts_and_is_deleted(
    address: str, index: ImageIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = told(ask(address, "describe", method="POST", body=index.paths[0].read_bytes()))["answers"]
    assert sorted(each["text"] for each in found) == sorted(TEXTS)
    refused = told(ask(address, "describe", method="POST", body=b"no picture"), 422)
    assert refused["problem"].startswith("the picture cannot be read")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_too_large_is_not_read_to_its_end(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    announced = {"content-length": str(MOST_UPLOADED_BYTES + 1)}
    assert "20 MB" in told(ask(address, "describe", method="POST", headers=announced), 413)["problem"]
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.putrequest("POST", "/describe")
    connection.putheader("Transfer-Encoding", "chunked")  # whose length is not announced
    connection.endheaders()
    part = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for _ in range((MOST_UPLOADED_BYTES >> 20) + 1):
        connection.send(part)
    assert connection.getresponse().status == 413
    connection.close()
    assert not list(tmp_path.iterdir())
    assert told(ask(address, "describe", method="POST"), 422)["problem"] == "there is no picture in the request"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("search", 422),
        (f"search?text={'a' * 1001}", 422),
        ("search?text=a&top=0", 422),
        ("search?text=a&top=many", 422),
        ("pictures/9999", 404),
        ("pictures/-1", 404),
        ("pictures/one", 422),
        ("pictures/..%2f..%2ftrain.json", 404),
        ("pictures/../../etc/passwd", 404),
        ("train.json", 404),
        ("docs", 404),
        ("openapi.json", 404),
    ],
)
def test_nothing_else_is_answered(address: str, path: str, status: int) -> None:
    answer = ask(address, path)
    assert answer[0] == status
    assert list(json.loads(answer[2])) == ["problem"]


def test_other_hosts_and_other_sites_get_nothing(address: str) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        status, _, content = ask(address, "search?text=dome", headers=headers)
        assert status == 403
        assert b"does not answer" in content


def test_the_page_loads_nothing_from_elsewhere(address: str) -> None:
    status, headers, content = ask(address, "")
    assert status == 200
    policy = headers["content-security-policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert content.decode().count(f'nonce="{nonce}"') == 2
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert nonce not in ask(address, "")[1]["content-security-policy"]


def wait_for(page: Page, condition: str) -> None:
    wait_until(lambda: page.evaluate(condition))


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@needs_browser
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_sentence_is_typed_and_pictures_appear_with_their_boxes(address: str, width: int) -> None:
    assert CHROMIUM is not None
    with browser(CHROMIUM) as page:
        page.open(address, width=width)
        wait_for(page, "document.activeElement.id === 'sentence' && part('about').textContent !== ''")
        page.write(TEXTS[0])
        page.press("Enter", code=13, text="\r")
        wait_for(page, "document.querySelectorAll('#pictures img').length > 0")
        wait_for(page, "[...document.querySelectorAll('#pictures img')].every((image) => image.naturalWidth > 0)")
        inside = """[...document.querySelectorAll('#pictures .picture')].every((picture) => {
            const outer = picture.getBoundingClientRect();
            const inner = picture.querySelector('.box').getBoundingClientRect();
            return inner.width > 0 && inner.left >= outer.left - 1 && inner.right <= outer.right + 1
                && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1; })"""
        assert page.evaluate(inside)
        assert fits(page)
        page.press("Tab", code=9)
        page.press("Tab", code=9)
        assert page.evaluate("document.activeElement.className") == "picture"
        assert page.errors == []
        assert all(request.startswith(address) for request in page.requests)


@needs_browser
def test_a_picture_is_chosen_or_dropped_and_texts_appear(address: str, index: ImageIndex) -> None:
    assert CHROMIUM is not None
    with browser(CHROMIUM) as page:
        page.open(address, width=PHONE)
        wait_for(page, "part('about').textContent !== ''")
        page.choose_file("#file", index.paths[0])
        wait_for(page, f"document.querySelectorAll('#texts button').length === {len(TEXTS)}")
        assert page.evaluate("document.querySelector('#texts [aria-pressed=true]').textContent !== ''")
        assert page.evaluate("document.querySelectorAll('#shown .box').length") == 1
        page.evaluate("part('texts').replaceChildren()")
        page.evaluate(
            """fetch('pictures/1').then((answer) => answer.blob()).then((blob) => {
                const carried = new DataTransfer();
                carried.items.add(new File([blob], 'dropped.jpeg'));
                part('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: carried, bubbles: true})); })"""
        )
        wait_for(page, "part('described').textContent.endsWith('dropped.jpeg')")
        assert page.evaluate("document.querySelectorAll('#texts button').length") == len(TEXTS)
        assert fits(page)
        assert page.errors == []
        assert all(request.startswith((address, "blob:")) for request in page.requests)


@needs_browser
def test_without_texts_the_page_says_how_to_have_them(wordless_address: str) -> None:
    assert CHROMIUM is not None
    with browser(CHROMIUM) as page:
        page.open(wordless_address, width=DESK)
        wait_for(page, "part('file').disabled")
        assert "--texts FILE" in page.evaluate("part('invitation').textContent")
        assert page.errors == []
