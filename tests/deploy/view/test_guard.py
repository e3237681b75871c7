"""Hosts, origins and tokens: what passes is spelled out, all else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeport.deploy.view import guard
from spikeport.deploy.view.guard import Gate, Request, refusal

TOKEN = "a-token-of-sixteen"  # noqa: S105 - of a test
HERE = "127.0.0.1:8700"
GATE = guard.gate("127.0.0.1", 8700, token=TOKEN)


def request(
    *headers: tuple[str, str], path: str = "/page/app.js", query: str = "", method: str = "GET", socket: bool = False
) -> Request:
    spelled = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
    return Request(method, path, query.encode(), spelled, socket)


def status(*headers: tuple[str, str], gate: Gate = GATE, **options: object) -> int | None:
    found = refusal(request(*headers, **options), gate)  # type: ignore[arg-type]
    return None if found is None else int(found.status)


HOST = ("host", HERE)
COOKIE = ("cookie", f"spikeport-8700={TOKEN}")
ORIGIN = ("origin", f"http://{HERE}")


def test_a_loopback_address_has_three_names_and_no_others() -> None:
    assert GATE.hosts == {"127.0.0.1:8700", "localhost:8700", "[::1]:8700"}
    assert guard.gate("localhost", 8700, token=TOKEN).hosts == guard.gate("::1", 8700, token=TOKEN).hosts == GATE.hosts


def test_another_interface_has_its_address_and_the_names_allowed() -> None:
    assert guard.gate("10.0.0.7", 8700, token=TOKEN).hosts == {"10.0.0.7:8700"}
    both = guard.gate("10.0.0.7", 8700, token=TOKEN, allow_hosts=("Lab.example", "fe80::1"))
    assert both.hosts == {"10.0.0.7:8700", "lab.example:8700", "[fe80::1]:8700"}
    assert guard.gate("0.0.0.0", 80, token=TOKEN, allow_hosts=("lab",)).hosts == {"lab:80", "lab"}  # noqa: S104


@pytest.mark.parametrize("host", ["127.0.0.1:8700", "localhost:8700", "[::1]:8700", "LocalHost:8700"])
def test_the_names_of_the_page_pass(host: str) -> None:
    assert status(("host", host), COOKIE) is None


@pytest.mark.parametrize(
    "host",
    [
        *("", "127.0.0.1", "localhost", "127.0.0.1:8701", "127.0.0.1:87001", "127.0.0.1:8700.evil.example"),
        *("evil.example:8700", "localhost.evil.example:8700", "127.0.0.1.nip.io:8700", "xlocalhost:8700"),
        *("127.0.0.1:8700@evil.example", "127.1:8700", "0.0.0.0:8700", "[::ffff:127.0.0.1]:8700", " 127.0.0.1:8700 x"),
    ],
)
def test_other_hosts_are_misdirected(host: str) -> None:
    assert status(("host", host), COOKIE) == 421


def test_a_request_names_one_host() -> None:
    assert status(COOKIE) == 421
    assert status(HOST, HOST, COOKIE) == 421


@pytest.mark.parametrize(
    "origin",
    [
        *("", "null", "http://127.0.0.1", f"https://{HERE}", f"http://{HERE}.evil.example", f"http://{HERE}1"),
        *(f"http://{HERE}/", f"ws://{HERE}", "http://localhost:8700", "http://evil.example", f"HTTP://{HERE}"),
        *(f"http://{HERE} http://evil.example", "file://", f"http://x@{HERE}"),
    ],
)
@pytest.mark.parametrize("socket", [True, False])
def test_other_origins_are_refused(origin: str, socket: bool) -> None:
    assert status(HOST, COOKIE, ("origin", origin), socket=socket) == 403
    assert status(HOST, ("authorization", f"Bearer {TOKEN}"), ("origin", origin), socket=socket) == 403


def test_a_socket_needs_the_origin_of_the_page_or_the_token_in_a_header() -> None:
    assert status(HOST, COOKIE, ORIGIN, socket=True) is None
    assert status(("host", "localhost:8700"), COOKIE, ("origin", "http://localhost:8700"), socket=True) is None
    assert status(HOST, COOKIE, socket=True) == 403
    assert status(HOST, COOKIE, ORIGIN, ORIGIN, socket=True) == 403
    assert status(HOST, COOKIE, ("authorization", "Bearer wrong"), socket=True) == 403
    assert status(HOST, ("authorization", f"Bearer {TOKEN}"), socket=True) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "get", "X"])
def test_other_methods_need_an_origin_and_are_not_allowed_even_then(method: str) -> None:
    assert status(HOST, COOKIE, method=method) == 403
    assert status(HOST, COOKIE, ORIGIN, method=method) == 405
    assert status(HOST, ORIGIN, path="/", query=f"token={TOKEN}", method=method) == 403


def test_pages_of_other_sites_may_lead_here_and_embed_nothing() -> None:
    for site in ("cross-site", "same-site"):
        assert status(HOST, COOKIE, ("sec-fetch-site", site), path="/export/activity.gif") == 403
        assert status(HOST, COOKIE, ("sec-fetch-site", site), path="/") is None
    for site in ("same-origin", "none"):
        assert status(HOST, COOKIE, ("sec-fetch-site", site)) is None


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("cookie", "spikeport-8700="),),
        (("cookie", f"spikeport-8701={TOKEN}"),),
        (("cookie", f"spikeport-8700={TOKEN}x"),),
        (("cookie", f"spikeport-8700={TOKEN[:-1]}"),),
        (("cookie", f"spikeport-8700={TOKEN.upper()}"),),
        (("cookie", "spikeport-8700=\xe4\xf6\xfc"),),
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", "Bearer"),),
        (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")),
    ],
)
def test_without_the_token_nothing_is_seen(headers: tuple[tuple[str, str], ...]) -> None:
    assert status(HOST, *headers) == 403
    assert status(HOST, *headers, ORIGIN, socket=True) == 403


def test_the_token_may_come_in_the_address_of_the_page_alone() -> None:
    good = f"token={TOKEN}"
    assert status(HOST, path="/", query=good) is None
    assert status(HOST, path="/page/app.js", query=good) == 403
    for query in ("", "token=", "token=wrong", f"{good}&{good}", f"Token={TOKEN}", good + "x", "&".join("abcdefghi")):
        assert status(HOST, path="/", query=query) == 403
    assert not guard.is_login(Request("GET", "/", b"token=\xff", (), False), GATE)


def test_cookies_of_other_servers_do_not_get_in_the_way() -> None:
    lines = (("cookie", "a=1; spikeport-8700=old"), ("cookie", f' spikeport-8700="{TOKEN}" ;b=2; c'))
    found = guard.cookies(request(*lines).headers, "spikeport-8700")
    assert found == ["old", TOKEN]
    assert status(HOST, *lines) is None


@given(st.text(max_size=30), st.text(st.characters(codec="ascii"), min_size=1, max_size=30))
def test_a_token_is_equal_or_not(given_: str, token: str) -> None:
    assert guard.is_token(given_, token) == (given_ == token)
    assert guard.is_token(token, token)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["host", "cookie", "origin", "authorization"]),
            st.text(st.characters(max_codepoint=255), max_size=40),
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_no_headers_without_the_token_pass(headers: list[tuple[str, str]], is_socket: bool) -> None:
    assert status(*headers, socket=is_socket) in (403, 421)
    assert status(HOST, *(pair for pair in headers if pair[0] != "host"), socket=is_socket) == 403
