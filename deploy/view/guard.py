"""Who may see the page: the rules for hosts, origins and the token, as functions of a request's headers."""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import parse_qs

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
"""What this machine's own loopback is called in a browser."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""What every answer carries, refusals included: nothing from elsewhere, no framing, nothing kept by the browser."""

HeaderList = Sequence[tuple[bytes, bytes]]
"""Headers of a request, names in lower case."""


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a request is held against: the hosts that it may name, with ports, and the token."""

    hosts: frozenset[str]
    cookie: str
    token: str


@dataclasses.dataclass(frozen=True)
class Request:
    """What is looked at in a request; a WebSocket's method is GET."""

    method: str
    path: str
    query: bytes
    headers: HeaderList
    is_socket: bool


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a request is refused: the status of the answer, and a sentence."""

    status: HTTPStatus
    sentence: str


def gate(host: str, port: int, *, token: str, allow_hosts: Iterable[str] = ()) -> Gate:
    """Return what requests to a server on ``host`` and ``port`` are held against.

    Law: an address of the loopback stands for its three names; every other one for itself and ``allow_hosts``. One that
    means every interface stands for ``allow_hosts`` alone.
    """
    names = {*(LOOPBACK_NAMES if is_loopback(host) else () if is_every(host) else (host,)), *allow_hosts}
    return Gate(frozenset(spelled for name in names for spelled in _spellings(name, port)), cookie_name(port), token)


def authority(name: str, port: int) -> str:
    """Return a host and port as an address has them, IPv6 in brackets."""
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def cookie_name(port: int) -> str:
    """Return the name of the cookie; browsers share cookies between the ports of a host, so it holds the port."""
    return f"spikeport-{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_every(host: str) -> bool:
    """Return whether an address stands for every interface."""
    address = _address(host)
    return address is not None and address.is_unspecified


def refusal(request: Request, gate: Gate) -> Refusal | None:
    """Return why a request is refused, or None where it may pass.

    Law: the Host is one of the gate's; an Origin, where there is one, is the page's own to the letter; a WebSocket
    without one passes only with the token in its Authorization header. Everything but the address with the token in
    it needs the cookie or that header.
    """
    host = _only(request.headers, b"host")
    if host is None or host.lower() not in gate.hosts:
        return Refusal(HTTPStatus.MISDIRECTED_REQUEST, "This host is not served here. Try the address as printed.")
    if not is_same_origin(request, host, gate):
        return Refusal(HTTPStatus.FORBIDDEN, "This request comes from another page.")
    if not (_has_bearer(request.headers, gate) or is_login(request, gate) or _has_cookie(request, gate)):
        return Refusal(HTTPStatus.FORBIDDEN, "The token is missing or wrong. Try the address as spikeport printed it.")
    if request.method != "GET":
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered here.")
    return None


def is_same_origin(request: Request, host: str, gate: Gate) -> bool:
    """Return whether a request comes from the page of ``host``, or from nobody's.

    Browsers leave the Origin out of plain requests for pages and files; where they say which site asks, another one
    may only lead to the page itself.
    """
    origins = _values(request.headers, b"origin")
    if origins:
        return origins == [f"http://{host.lower()}"]
    if request.is_socket or request.method != "GET":
        return _has_bearer(request.headers, gate)
    site = _only(request.headers, b"sec-fetch-site")
    return site not in ("cross-site", "same-site") or request.path == "/"


def is_login(request: Request, gate: Gate) -> bool:
    """Return whether a request brings the token in its address, for the cookie in return."""
    return request.method == "GET" and request.path == "/" and _matches(_asked_tokens(request), gate.token)


def is_token(given: str, token: str) -> bool:
    """Return whether a text is the token, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def cookies(headers: HeaderList, name: str) -> list[str]:
    """Return the values of the cookies of a name; there are several where other servers of a host set it too."""
    pairs = (pair.strip().partition("=") for line in _values(headers, b"cookie") for pair in line.split(";"))
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]


def _has_cookie(request: Request, gate: Gate) -> bool:
    return any(is_token(value, gate.token) for value in cookies(request.headers, gate.cookie))


def _has_bearer(headers: HeaderList, gate: Gate) -> bool:
    scheme, _, token = (_only(headers, b"authorization") or "").partition(" ")
    return scheme.lower() == "bearer" and is_token(token.strip(), gate.token)


def _asked_tokens(request: Request) -> list[str]:
    try:
        return parse_qs(request.query.decode("ascii"), max_num_fields=8).get("token", [])
    except ValueError:
        return []


def _matches(given: list[str], token: str) -> bool:
    return len(given) == 1 and is_token(given[0], token)


def _spellings(name: str, port: int) -> tuple[str, ...]:
    plain = f"[{name}]" if ":" in name else name
    with_port = authority(name, port).lower()
    # Browsers leave out the port that their scheme has anyway.
    return (with_port, plain.lower()) if port == 80 else (with_port,)


def _values(headers: HeaderList, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _only(headers: HeaderList, name: bytes) -> str | None:
    values = _values(headers, name)
    return values[0] if len(values) == 1 else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
