"""The server on real sockets: who gets in, what is refused and how, and that a slow client costs others nothing."""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spikeport.deploy.errors import SettingError
from spikeport.deploy.view import door, guard
from spikeport.deploy.view.assets import MAX_EXPORT_US, Assets
from spikeport.deploy.view.server import ViewServer
from spikeport.deploy.view.settings import ServeSettings

from .clients import (
    FACTS,
    NONE,
    TOKEN,
    FakeShow,
    Stand,
    answer_to,
    ask,
    bare_socket,
    closed_with,
    open_socket,
    quiet,
    refused,
    say,
    standing,
    token_of,
    wait_for,
)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(autouse=True)
def no_complaint(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet(caplog):
        yield


# files


def test_the_address_with_the_token_gives_a_cookie_and_leads_to_the_page(stand: Stand) -> None:
    port = stand.server.port
    assert stand.server.url == f"http://127.0.0.1:{port}/?token={TOKEN}"
    status, headers, _ = ask(stand.server, f"/?token={TOKEN}", token=NONE)
    assert (status, headers["location"]) == (303, "/")
    cookie, *flags = headers["set-cookie"].split("; ")
    assert cookie == f"spikeport-{port}={TOKEN}"
    assert {flag.lower() for flag in flags} == {"httponly", "path=/", "samesite=strict"}
    status, headers, body = ask(stand.server, token=NONE, headers={"cookie": cookie})
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"page" in body


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/base.css", "text/css; charset=utf-8"),
        ("/icons/0_zero.png", "image/png"),
    ],
)
def test_files_have_their_kinds(stand: Stand, path: str, kind: str) -> None:
    status, headers, _ = ask(stand.server, path)
    assert (status, headers["content-type"]) == (200, kind)


@pytest.mark.parametrize(
    "path",
    [
        *("/page/../beside.js", "/page/%2e%2e/beside.js", "/page/..%2fbeside.js", "/page//etc/passwd", "/page/"),
        *(
            "/page/%2fetc%2fpasswd",
            "/page/....//beside.js",
            "/page/..\\beside.js",
            "/page/secret.txt",
            "/page/app.js%00",
        ),
        *("/page/app.js/", "/icons/../page/app.js", "/icons/app.js", "/nothing", "/page", "/ws", "//", "/page/%ff"),
    ],
)
def test_nothing_but_the_listed_files_is_served(stand: Stand, path: str) -> None:
    status, headers, body = ask(stand.server, path)
    assert status == 404
    assert b"beside" not in body
    assert headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/icons/0_zero.png", "/export/windows.csv", "/ws", "/nothing"])
def test_without_the_token_every_path_is_refused_alike(stand: Stand, path: str) -> None:
    answers = [ask(stand.server, path, token=token) for token in (NONE, "wrong", TOKEN + "x", "")]
    assert {(status, body) for status, _, body in answers} == {(403, answers[0][2])}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 200),
        ({"path": "/nothing"}, 404),
        ({"token": "wrong"}, 403),
        ({"headers": {"host": "evil.example"}}, 421),
        ({"headers": {"origin": "http://evil.example"}}, 403),
        ({"method": "POST"}, 200),
        ({"method": "OPTIONS"}, 200),
        ({"method": "HEAD"}, 200),
        ({"path": "/?token=wrong", "token": NONE}, 403),
        ({"path": "/export/activity.gif"}, 400),
    ],
)
def test_every_answer_has_the_headers_that_protect(stand: Stand, options: dict[str, Any], expected: int) -> None:
    status, headers, _ = ask(stand.server, **options)
    # Someone with the token in a header may ask otherwise, and is told what to ask.
    assert status == (405 if "method" in options else expected)
    assert {name: headers.get(name) for name in guard.HEADERS} == dict(guard.HEADERS)
    assert "server" not in headers
    assert headers.get("allow") == ("GET" if status == 405 else None)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000])
def test_what_is_no_http_is_refused_with_the_same_headers(stand: Stand, sent: bytes) -> None:
    with sockets.create_connection(("127.0.0.1", stand.server.port), 3) as raw:
        raw.sendall(sent)
        answer = b""
        while piece := raw.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"content-security-policy: default-src 'none'" in answer


def test_garbage_behind_a_request_ends_the_connection(stand: Stand) -> None:
    with sockets.create_connection(("127.0.0.1", stand.server.port), 3) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := raw.recv(4096):
                answer += piece
    assert b" 200 " not in answer


# exports


def test_exports_come_as_files(stand: Stand) -> None:
    status, headers, body = ask(stand.server, "/export/windows.csv")
    assert (status, body) == (200, b"index,label\n0,1\n")
    assert headers["content-disposition"] == 'attachment; filename="windows.csv"'
    status, headers, body = ask(stand.server, "/export/activity.gif?from_us=20&to_us=40")
    assert (status, headers["content-type"], body) == (200, "image/gif", b"GIF89a 20 40")


@pytest.mark.parametrize(
    "query",
    [
        *("", "?", "?from_us=1", "?from_us=2&to_us=2", "?from_us=3&to_us=2", f"?from_us=0&to_us={MAX_EXPORT_US + 1}"),
        *("?from_us=-1&to_us=2", "?from_us=a&to_us=2", "?from_us=1&to_us=2&more=3", "?from_us=1&from_us=1&to_us=2"),
        *("?from_us=0&to_us=" + "9" * 5000, "?from_us=1.5&to_us=2", "?from_us=%d9%a3&to_us=9", "?from_us=1_0&to_us=20"),
    ],
)
def test_the_range_of_an_animation_is_bounded(stand: Stand, query: str) -> None:
    status, _, body = ask(stand.server, f"/export/activity.gif{query}")
    assert status == 400
    assert body.startswith(b"activity.gif: expected ")


def test_an_export_that_cannot_be_made_says_why(stand: Stand) -> None:
    status, _, body = ask(stand.server, "/export/activity.gif?from_us=13&to_us=40")
    assert (status, body) == (409, b"activity.gif: 13 us is too early. Try 14.")
    assert ask(stand.server, "/export/windows.csv?x=1")[0] == 400


def test_one_export_is_made_at_a_time(stand: Stand) -> None:
    found: list[int] = []
    first = threading.Thread(
        target=lambda: found.append(ask(stand.server, "/export/activity.gif?from_us=14&to_us=40")[0])
    )
    first.start()
    assert stand.is_rendering.wait(5)
    status, headers, _ = ask(stand.server, "/export/windows.csv")
    assert (status, headers["retry-after"]) == (429, "1")
    stand.may_render.set()
    first.join()
    assert found == [200]
    assert ask(stand.server, "/export/windows.csv")[0] == 200


# who may open a WebSocket


def test_origins_of_a_socket(stand: Stand) -> None:
    at = f"127.0.0.1:{stand.server.port}"
    for origin in (
        *(
            "http://evil.example",
            "null",
            f"https://{at}",
            f"http://{at}.evil.example",
            f"http://{at}1",
            "http://127.0.0.1",
        ),
        *(f"http://localhost:{stand.server.port}", f"http://{at}/", None),
    ):
        assert refused(stand.server, origin=origin) == 403
    with bare_socket(stand.server, origin=None, headers={"authorization": f"Bearer {TOKEN}"}) as socket:
        assert socket.recv(3)


def test_tokens_and_hosts_of_a_socket(stand: Stand) -> None:
    port = stand.server.port
    assert refused(stand.server, headers={}) == 403
    assert refused(stand.server, headers={"cookie": f"spikeport-{port}=wrong"}) == 403
    assert refused(stand.server, headers={"cookie": f"spikeport-{port + 1}={TOKEN}"}) == 403
    request = (
        f"GET /ws HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\nCookie: spikeport-{port}={TOKEN}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\r\n"
    )
    for host, key, status in (
        ("evil.example", "dGhlIHNhbXBsZSBub25jZQ==", 421),
        (f"127.0.0.1:{port}.evil.example", "dGhlIHNhbXBsZSBub25jZQ==", 421),
        (f"127.0.0.1:{port}", "short", 400),
    ):
        with sockets.create_connection(("127.0.0.1", port), 3) as raw:
            raw.sendall(request.replace("HOST", host).replace("KEY", key).encode())
            answer = b""
            while piece := raw.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert b"content-security-policy: " in answer.lower()


def test_a_refused_page_is_nothing_to_tell_the_terminal(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    assert refused(stand.server, origin="http://elsewhere.example") == 403
    with ViewServer(FakeShow(), FACTS, ServeSettings(max_viewers=1)) as server, open_socket(server):
        assert refused(server) == 503
    assert [record.getMessage() for record in caplog.records] == []


def test_more_pages_than_may_are_refused_until_one_goes() -> None:
    show = FakeShow()
    with ViewServer(show, FACTS, ServeSettings(max_viewers=2)) as server, open_socket(server):
        with open_socket(server):
            assert refused(server) == 503
            assert server.n_clients == 2
        wait_for(lambda: server.n_clients == 1)
        with open_socket(server):
            pass


def test_a_hundred_connections() -> None:
    with ViewServer(FakeShow(), FACTS) as server, open_socket(server) as looking:
        with contextlib.ExitStack() as held:
            raw = [held.enter_context(sockets.create_connection(("127.0.0.1", server.port), 3)) for _ in range(100)]
            raw[-1].sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            answer = raw[-1].recv(4096)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"content-security-policy" in answer
            assert refused(server) == 503
            more = [held.enter_context(sockets.create_connection(("127.0.0.1", server.port), 3)) for _ in range(60)]
            assert is_cut(more[-1])
            say(looking, do="play", id=1)
            assert answer_to(looking, 1) is None
        wait_for(lambda: ask(server)[0] == 200)


def test_connections_that_send_nothing_or_a_letter_at_a_time_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SILENT_S", 0.3)
    with (
        ViewServer(FakeShow(), FACTS) as server,
        sockets.create_connection(("127.0.0.1", server.port), 3) as silent,
        sockets.create_connection(("127.0.0.1", server.port), 3) as slow,
    ):
        slow.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nx: ".encode())
        with contextlib.suppress(OSError):
            for _ in range(40):
                slow.sendall(b"G")
                time.sleep(0.05)
        assert is_cut(slow)
        assert is_cut(silent)


def is_cut(raw: sockets.socket) -> bool:
    try:
        return raw.recv(10) == b""
    except ConnectionError:
        return True


# beginning and end


def test_a_server_ends_at_once_with_clients_that_read_and_some_that_do_not() -> None:
    show = FakeShow()
    before_it = threading.active_count()
    server = ViewServer(show, FACTS).start()
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(open_socket(server)) for _ in range(8)]
        held.enter_context(sockets.create_connection(("127.0.0.1", server.port)))
        say(clients[0], do="step", n=5, id=1)
        before = time.monotonic()
        server.close()
        assert time.monotonic() - before < 2
        assert [closed_with(client) for client in clients] == [1001] * 8
        assert show.listeners == []
        server.close()
        with pytest.raises(ConnectionRefusedError):
            sockets.create_connection(("127.0.0.1", server.port), 1)
        show.gate.set()
    wait_for(lambda: threading.active_count() <= before_it)


def test_a_server_ends_while_it_exports() -> None:
    is_rendering, stop = threading.Event(), threading.Event()

    def render() -> bytes:
        is_rendering.set()
        return b"%d" % stop.wait(5)

    server = ViewServer(FakeShow(), FACTS, assets=Assets(windows_csv=render)).start()
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(ask(server, "/export/windows.csv")[0]))
    asking.start()
    assert is_rendering.wait(5)
    before = time.monotonic()
    server.close()
    assert time.monotonic() - before < 2
    stop.set()
    asking.join()
    assert found == [503]


def test_a_port_that_is_taken_is_named(stand: Stand) -> None:
    port = stand.server.port
    with pytest.raises(SettingError, match=f"port {port} of 127.0.0.1 cannot be listened on: .* Try --port 0"):
        ViewServer(FakeShow(), FACTS, ServeSettings(port=port)).start()
    with pytest.raises(SettingError, match=r"192\.0\.2\.1 cannot be listened on"):
        ViewServer(FakeShow(), FACTS, ServeSettings(host="192.0.2.1")).start()


def test_a_server_keeps_no_port_and_can_be_started_anew() -> None:
    server = ViewServer(FakeShow(), FACTS)
    with server:
        port = server.port
        assert ask(server)[0] == 200
    with ViewServer(FakeShow(), FACTS, ServeSettings(port=port)) as again:
        assert again.port == port
        assert token_of(again) != token_of(server)


def test_every_interface_has_the_address_of_an_allowed_name() -> None:
    settings = ServeSettings(host="0.0.0.0", allow_hosts=("lab.example",))  # noqa: S104
    with ViewServer(FakeShow(), FACTS, settings) as server:
        assert server.url.startswith(f"http://lab.example:{server.port}/?token=")
        assert ask(server)[0] == 421
        assert ask(server, headers={"host": f"lab.example:{server.port}"})[0] == 200


def test_files_that_cannot_be_served_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "icon.txt").write_text("no picture")
    with pytest.raises(SettingError, match=r"icon\.txt: expected .* Try a PNG"):
        ViewServer(FakeShow(), FACTS, assets=Assets(icons={"icon.txt": tmp_path / "icon.txt"}))
    with pytest.raises(SettingError, match="page: expected a folder"):
        ViewServer(FakeShow(), FACTS, assets=Assets(tmp_path / "nowhere"))
