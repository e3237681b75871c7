"""The web server of the live view: the page, its files, what can be exported, and a WebSocket for each client."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from spikeport.convert.errors import ConvertError
from spikeport.deploy.errors import DeployError, SettingError
from spikeport.models.errors import ModelsError

from . import guard
from .assets import Assets, Listing, export_range, page_files, read_listing
from .backlog import Audience
from .door import HttpDoor, SocketDoor
from .protocol import MAX_COMMAND_BYTES, Command
from .relay import MAX_RUNNING, Client, Player, Stage
from .settings import ServeSettings

_FAREWELL_S = 0.6
_END_S = 2.0


class ViewServer:
    """A web server in a thread of its own that shows a show to whoever has the token.

    ``facts`` are sent to each client first, and to all when they change. ``audience`` is one that the show tells
    already; None: one from ``start`` to ``close``. When the first client has drawn its first frame, the show begins if
    it waits for that.
    Raises: SettingError where a file of the page or an icon cannot be served, or from ``start`` where the address is
    taken or not this machine's.
    """

    def __init__(
        self,
        show: Player,
        facts: Mapping[str, Any],
        serve: ServeSettings | None = None,
        assets: Assets | None = None,
        *,
        audience: Audience | None = None,
    ) -> None:
        self._audience = Audience() if audience is None else audience
        self._is_told = audience is not None
        self._serve = ServeSettings() if serve is None else serve
        self._assets = Assets() if assets is None else assets
        self._facts = facts
        self._show = show
        self._page = read_listing(page_files(self._assets.page))
        self._icons = read_listing(self._assets.icons)
        self._clients: set[Client] = set()
        self._n_entering = 0
        self._exporting: set[str] = set()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._port = 0
        self._token = self._serve.token or secrets.token_urlsafe(24)

    @property
    def port(self) -> int:
        """The port that the server listens on, once it has started."""
        return self._port

    @property
    def url(self) -> str:
        """The address of the page with the token in it, once the server has started."""
        host = self._serve.host
        if guard.is_every(host):
            host = self._serve.allow_hosts[0]
        return f"http://{guard.authority(host, self._port)}/?token={self._token}"

    @property
    def n_clients(self) -> int:
        """Clients that look on."""
        return len(self._clients)

    def start(self) -> Self:
        """Return the server when it listens. Raises: SettingError where the address cannot be had."""
        self._listener = _listen(self._serve.host, self._serve.port)
        self._port = self._listener.getsockname()[1]
        self._gate = guard.gate(self._serve.host, self._port, token=self._token, allow_hosts=self._serve.allow_hosts)
        self._threads = ThreadPoolExecutor(MAX_RUNNING * self._serve.max_viewers, "view-command")
        self._renderer = ThreadPoolExecutor(1, "view-export")
        self._stage = Stage(
            self._show, self._audience, self._threads, self._assets.record_path, float(self._facts["settings"]["fps"])
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                _Guarded(self._app(), self._gate),
                http=HttpDoor,
                ws=SocketDoor,
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws_max_size=MAX_COMMAND_BYTES,
                ws_per_message_deflate=False,
                h11_max_incomplete_event_size=16 << 10,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
            )
        )
        self._ready.clear()
        if not self._is_told:
            self._show.add_listener(self._audience)
        self._thread = threading.Thread(target=self._run, name="view-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Send facts to every client, now and when it connects."""
        self._facts = facts
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._tell_all)

    def close(self) -> None:
        """Send the clients away and end, within 2 s; closing twice is fine."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if not self._is_told:
            self._show.remove_listener(self._audience)
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop)
        thread.join(_END_S)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._renderer.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        serving = asyncio.create_task(self._server.serve([self._listener]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.001)
        self._ready.set()
        await serving

    async def _shut(self) -> None:
        self._ending.set()
        # Connections that were accepted a moment ago are let in before the server closes, which would drop them open.
        with suppress(NotImplementedError):
            self._loop.remove_reader(self._listener)
        await asyncio.sleep(0.01)
        for server in self._server.servers:
            server.close()
        for client in tuple(self._clients):
            client.stop()
        connections = self._server.server_state.connections
        until_s = self._loop.time() + _FAREWELL_S
        while self._clients and self._loop.time() < until_s:
            await asyncio.sleep(0.01)
        # Those that answer the farewell are gone in a moment; the rest neither reads nor answers.
        await asyncio.sleep(0.05)
        for connection in tuple(connections):
            connection.transport.abort()
        self._server.should_exit = True

    def _tell_all(self) -> None:
        for client in self._clients:
            client.tell(self._facts)

    def _app(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/page/{name}", self._page_file),
                Route("/icons/{name}", self._icon),
                Route("/export/windows.csv", self._windows_csv),
                Route("/export/activity.gif", self._activity_gif),
                WebSocketRoute("/ws", self._look_on),
            ]
        )
        app.router.redirect_slashes = False
        return app

    async def _index(self, request: Request) -> Response:
        if guard.is_login(_seen(request.scope), self._gate):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._gate.cookie, self._token, httponly=True, samesite="strict")
            return answer
        return _file(self._page, "index.html")

    async def _page_file(self, request: Request) -> Response:
        return _file(self._page, request.path_params["name"])

    async def _icon(self, request: Request) -> Response:
        return _file(self._icons, request.path_params["name"])

    async def _windows_csv(self, request: Request) -> Response:
        if request.scope["query_string"]:
            return PlainTextResponse("windows.csv: expected no options.", 400)
        return await self._export(request, "text/csv; charset=utf-8", self._assets.windows_csv)

    async def _activity_gif(self, request: Request) -> Response:
        try:
            start_us, stop_us = export_range(request.scope["query_string"])
        except SettingError as problem:
            return PlainTextResponse(str(problem), 400)
        render = self._assets.activity_gif
        return await self._export(request, "image/gif", None if render is None else lambda: render(start_us, stop_us))

    async def _export(self, request: Request, kind: str, render: Callable[[], bytes] | None) -> Response:
        """Answer with what a thread renders: one thing at a time for all, and one asked for at a time by each."""
        name = request.url.path.rpartition("/")[2]
        if render is None:
            return PlainTextResponse(f"{name}: there is nothing to export here.", 404)
        peer = request.client.host if request.client else ""
        if peer in self._exporting:
            return PlainTextResponse("One export at a time. Try again in a moment.", 429, {"retry-after": "1"})
        self._exporting.add(peer)
        rendering = asyncio.ensure_future(self._loop.run_in_executor(self._renderer, render))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((rendering, ending), return_when=asyncio.FIRST_COMPLETED)
            if not rendering.done():
                return PlainTextResponse("The view ends.", 503)
            content = rendering.result()
        except (DeployError, ConvertError, ModelsError, OSError) as problem:
            return PlainTextResponse(f"{name}: {problem}", 409)
        finally:
            ending.cancel()
            rendering.cancel()
            self._exporting.discard(peer)
        return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})

    async def _look_on(self, websocket: WebSocket) -> None:
        if self._n_entering + len(self._clients) >= self._serve.max_viewers or self._ending.is_set():
            full = f"{self._serve.max_viewers} pages look on already, which is as many as may."
            await websocket.send_denial_response(PlainTextResponse(full, 503))
            return
        self._n_entering += 1
        try:
            await websocket.accept()
        finally:
            self._n_entering -= 1
        client = Client(websocket, self._stage, self._facts)
        self._clients.add(client)
        try:
            await client.serve(self._after)
        finally:
            self._clients.discard(client)

    def _after(self, command: Command) -> None:
        """Have the facts follow a command, so that every client shows the same knobs."""
        if command.do in ("knobs", "watch"):
            self._facts = {**self._facts, "settings": {**self._facts["settings"], **_changed(command)}}
            self._tell_all()


class _Guarded:
    """An application behind the guard: refusals come first, and every answer has the guard's headers."""

    def __init__(self, app: ASGIApp, gate: guard.Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        def finished(message: Message) -> Message:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = [*message.get("headers", ()), *_SPELLED]
                if message["status"] >= 400:
                    headers.append((b"connection", b"close"))
                return {**message, "headers": headers}
            if message["type"] == "websocket.accept":
                return {**message, "headers": [*message.get("headers", ()), *_SPELLED]}
            return message

        async def send_finished(message: Message) -> None:
            await send(finished(message))

        refusal = guard.refusal(_seen(scope), self._gate)
        if refusal is None:
            await self._app(scope, receive, send_finished)
            return
        headers = {"allow": "GET"} if refusal.status == 405 else None
        await PlainTextResponse(refusal.sentence, refusal.status, headers)(scope, receive, send_finished)


_SPELLED = tuple((name.encode(), value.encode()) for name, value in guard.HEADERS.items())


def _seen(scope: Scope) -> guard.Request:
    """Return what the guard looks at."""
    is_socket = scope["type"] == "websocket"
    method = "GET" if is_socket else scope["method"]
    return guard.Request(method, scope["path"], scope["query_string"], tuple(scope["headers"]), is_socket)


def _changed(command: Command) -> Mapping[str, Any]:
    return command.values if command.do == "knobs" else {"watch": command.values["core"]}


def _file(listing: Listing, name: str) -> Response:
    if name not in listing:
        return PlainTextResponse("There is no such file.", 404)
    content, kind = listing[name]
    return Response(content, media_type=kind)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises: SettingError where the address is taken, or not this machine's."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        # Ports of connections that have just ended can be had again; one that is listened on cannot.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as problem:
        if listener is not None:
            listener.close()
        reason = problem.strerror or str(problem)
        advice = "--port 0 for a free one" if port else "--host 127.0.0.1, or another address of this machine"
        raise SettingError(f"port {port} of {host} cannot be listened on: {reason}. Try {advice}.") from problem
    return listener
