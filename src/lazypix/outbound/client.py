"""An HTTP client for URLs that others name: guarded, bounded, and alone with every request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpcore
import httpx

from lazypix import __version__
from lazypix.errors import BadRequest, Unreachable
from lazypix.outbound.connecting import Deadline, GuardedBackend, LookUp, look_up
from lazypix.outbound.rules import Rules, split_url

CONNECT_S, TOTAL_S = 3.0, 10.0
_MOST_REPLIED = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What another server answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """Its beginning, as much as is read."""

    @property
    def is_success(self) -> bool:
        """Whether the status says that it was done."""
        return 200 <= self.status < 300


class OutboundClient:
    """Asks servers that others name. Safe to use from many threads.

    Every request has a connection of its own, whose address is checked when it is connected to. Nothing of the
    environment has a say (no proxies) but for the certificates that TLS trusts; redirects are not followed, cookies
    not kept. `look_up` finds the addresses of a host.
    """

    def __init__(
        self, rules: Rules, *, connect_s: float = CONNECT_S, total_s: float = TOTAL_S, look_up: LookUp = look_up
    ) -> None:
        self.rules = rules
        self._look_up = look_up
        self._connect_s = connect_s
        self._total_s = total_s
        self._tls = httpx.create_ssl_context()

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """Send a request, and return what was answered, with up to 64 KiB of the body.

        Raises:
            BadRequest: the URL is malformed.
            AddressRefused: it leads where nothing is asked.
            Unreachable: nobody answered properly in time.
        """
        with self.answering(method, url, headers=headers, body=body) as answer:
            beginning = b"".join(_beginning(answer.iter_raw(), _MOST_REPLIED))
        return Reply(status=answer.status_code, headers=dict(answer.headers), body=beginning)

    @contextmanager
    def answering(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        deadline: Deadline | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request, and give the answer, whose body is read from the connection until the end of the block.

        All is over by the deadline; without one, `total_s` seconds from now. Errors, in the block too: as `send`.
        """
        self.rules.check_url("url", url)
        identity = {"user-agent": f"lazypix/{__version__}", "accept": "*/*", "accept-encoding": "identity"}
        request = self._request(method, url, headers=identity | dict(headers or {}), body=body)
        with _told(url), self._connection(deadline or Deadline(self._total_s)) as connection:
            answer = connection.handle_request(request)
            try:
                yield answer
            finally:
                answer.close()

    def _request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None) -> httpx.Request:
        timeout = httpx.Timeout(self._total_s, connect=self._connect_s).as_dict()
        try:
            return httpx.Request(method, url, headers=headers, content=body, extensions={"timeout": timeout})
        except (httpx.InvalidURL, UnicodeError):  # of idna, which looks at what `xn--` stands for
            host = split_url(url).hostname
            raise BadRequest(f"{host!r} is no name of a host; accepted: a name as name servers know it") from None

    def _connection(self, deadline: Deadline) -> _PoolTransport:
        """Return what sends one request: not httpx' `Client`, which logs URLs whole, and what is secret in them."""
        backend = GuardedBackend(self.rules, deadline, self._look_up)
        return _PoolTransport(
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend, max_connections=1)
        )


class _PoolTransport(httpx.BaseTransport):
    """Hands httpx' requests to a pool of connections of our own."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer, read from the connection."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


def _beginning(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:most]
        most -= len(piece)
        if most <= 0:
            return


_FAILURES = (
    httpx.HTTPError, httpx.InvalidURL, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)  # fmt: skip


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Make one error of ours of all that can go wrong; what stands behind the host may be a secret."""
    try:
        yield
    except _FAILURES as error:
        raise Unreachable(f"{split_url(url).hostname} did not answer properly ({type(error).__name__})") from error
