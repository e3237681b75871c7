"""Connections before there is a request: how many there may be, and how long they may say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Response as HandshakeResponse
from websockets.server import ServerProtocol

from . import guard

MAX_CONNECTIONS = 64
"""Connections that are served at a time; more are answered that there is no room, twice as many are cut."""

SILENT_S = 5.0
"""How long a connection may take to send a request whole."""

_FULL = b"There are too many connections. Try again in a moment."


class HttpDoor(H11Protocol):
    """An HTTP connection with a limit of their number, and a time by which each request is whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_too_many = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if only to say that there is no room."""
        super().connection_made(transport)
        if len(self.connections) > 2 * MAX_CONNECTIONS:
            transport.abort()
            return
        self._is_too_many = len(self.connections) > MAX_CONNECTIONS
        if self._is_too_many:
            self.app = _refuse_full
        self._deadline = self.loop.call_later(SILENT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._set_deadline(is_waiting=False)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Answer the requests that have come, and give the next one its time."""
        super().handle_events()
        self._set_deadline(is_waiting=self.conn.their_state is h11.IDLE and not self.transport.is_closing())

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; where it follows a request that is being answered, end the connection."""
        if self.conn.our_state is not h11.IDLE:
            self.cycle.disconnected = True
            self.transport.close()
            return
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close"), *guard.HEADERS.items()]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=msg.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return not self._is_too_many and super()._should_upgrade()

    def _set_deadline(self, *, is_waiting: bool) -> None:
        if is_waiting and self._deadline is None:
            self._deadline = self.loop.call_later(SILENT_S, self.transport.close)
        elif not is_waiting and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class SocketDoor(WebSocketsSansIOProtocol):
    """A WebSocket whose refusals before it is open carry the headers of every other answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=self.logger)

    async def send(self, message: Any) -> None:
        """Send a message of the application; a refusal is an answer too, of which nobody has to be warned."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent


class _Handshake(ServerProtocol):
    def reject(self, status: int, text: str) -> HandshakeResponse:
        response = super().reject(status, text)
        response.headers.update(guard.HEADERS)
        return response


async def _refuse_full(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - what a server calls
    headers = {"content-type": "text/plain; charset=utf-8", "connection": "close", "retry-after": "1", **guard.HEADERS}
    spelled = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 503, "headers": spelled})
    await send({"type": "http.response.body", "body": _FULL})
