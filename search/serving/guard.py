"""Who may ask: requests that are meant for this server and come from its own page. An ASGI middleware.

A page of another site could otherwise make a browser ask this server, by its address or, with a name that is later
pointed at this machine (DNS rebinding), even read the answers.
"""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """Refuses requests for other hosts and from other sites, and adds headers to all answers."""

    def __init__(self, application: Application, host: str) -> None:
        """
        Args:
            host: that the server listens on.
        """
        self._application = application
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        if problem := self.refusal(headers, page=scope["path"] == "/"):
            await _refuse(send_with_headers, problem)
            return
        await self._application(scope, receive, send_with_headers)

    def refusal(self, headers: MutableMapping[str, str], *, page: bool) -> str | None:
        """Why a request is not answered; None if it is.

        Args:
            page: whether it is for the page itself, which other sites may link to.
        """
        host = headers.get("host", "")
        if not self.is_own(host):
            return "this server does not answer for another host"
        if "origin" in headers and urlsplit(headers["origin"]).netloc != host:
            return "this server does not answer pages of other sites"
        if not page and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "this server does not answer pages of other sites"
        return None

    def is_own(self, host: str) -> bool:
        """Whether a Host header, with or without port, names this server: no name but localhost and its own can.

        If it listens on another address than loopback, any address may lead to it.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self._host.strip("[]").lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self._host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address to listen on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


async def _refuse(send: Send, problem: str) -> None:
    content = problem.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": content})
