"""Refuses requests before they are processed: too large, too slow, too many at the same time, or without the token."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from recvae.serving.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PAGE = "/page/"
RETRY_AFTER = "1"  # second
_CONTENT_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"


def is_open(path: str) -> bool:
    """Return whether a path needs no token: load balancers have none, the page and the documentation ask for it."""
    return path in ("/health", "/ready", "/", "/docs", "/openapi.json") or path.startswith(PAGE)


class Guard:
    """ASGI middleware that refuses requests beyond the limits or without the token.

    Parameters
    ----------
    application : callable
        The ASGI application inside.
    settings : Settings
        Limits and token.
    """

    def __init__(self, application: Application, settings: Settings) -> None:
        self._inside, self._settings = application, settings
        self._in_flight = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._inside(scope, receive, send)
            return
        if is_open(scope["path"]):  # neither counted nor read: clients without a token must not block others
            await self._inside(scope, _replay(b"", receive), _with_headers(send, scope["path"]))
            return
        if self._in_flight >= self._settings.in_flight:
            await _refuse(send, 503, "too many requests at the same time; try again", retry_after=RETRY_AFTER)
            return
        if not self._may_ask(scope):
            expected = "expected the header 'Authorization: Bearer TOKEN' with the token of this server"
            await _refuse(send, 401, expected, www_authenticate="Bearer")
            return
        self._in_flight += 1
        try:
            body = await self._read(receive, _headers(scope), send)
            if body is not None:
                await self._inside(scope, _replay(body, receive), _with_headers(send, scope["path"]))
        finally:
            self._in_flight -= 1

    def _may_ask(self, scope: MutableMapping[str, Any]) -> bool:
        token = self._settings.token
        if token is None:
            return True
        kind, _, given = _headers(scope).get(b"authorization", b"").partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), token.encode())

    async def _read(self, receive: Receive, headers: dict[bytes, bytes], send: Send) -> bytes | None:
        """Return the body; None if it was refused, or the client disconnected."""
        most, seconds = self._settings.body_bytes, self._settings.seconds
        too_large = f"got a request of more than {most:,} bytes, the limit of this server; send less at a time"
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            await _refuse(send, 413, too_large)
            return None
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > most:
                        await _refuse(send, 413, too_large)
                        return None
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            await _refuse(send, 408, f"the request did not arrive within {seconds:g} seconds; send it faster")
            return None


def _headers(scope: MutableMapping[str, Any]) -> dict[bytes, bytes]:
    return dict(scope["headers"])


def _replay(body: bytes, receive: Receive) -> Receive:
    """Pass the body, which was read already, to the application; then wait for the client to disconnect."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send, path: str) -> Send:
    """Add security headers for browsers; not for the interactive documentation, which loads scripts from elsewhere."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            headers.append((b"x-content-type-options", b"nosniff"))
            if path == "/" or path.startswith(PAGE):
                headers.append((b"content-security-policy", _CONTENT_POLICY.encode()))
                headers.append((b"cache-control", b"no-cache"))  # otherwise a browser would mix files of two versions
        await send(message)

    return sent


async def _refuse(send: Send, status: int, error: str, **headers: str) -> None:
    body = json.dumps({"error": error}).encode()
    listed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    listed += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
