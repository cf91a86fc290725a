"""Which addresses may be reached when somebody else names them: pure, no name is looked up here.

Source: IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890), and the documents named below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from lazypix.errors import AddressRefused, BadRequest

LONGEST_URL = 2048
"""Characters of a URL that somebody may name."""
PORTS = (80, 443)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]+", re.ASCII)
_NUMBER = re.compile(r"([0-9]+|0[xX][0-9A-Fa-f]*)\.?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}

# Written out: what Python calls global changed from version to version.
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a provider's customers"),  # RFC 6598; Alibaba's metadata service too
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a metadata service"),  # Azure's, though the address is public
        ("169.254.0.0/16", "link-local"),  # the metadata services of most clouds
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),  # RFC 6890; Oracle's metadata service too
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "reserved"),  # 6to4 relays, RFC 7526
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4 inside IPv6"),  # compatible, RFC 4291
        ("::ffff:0:0/96", "IPv4 inside IPv6"),  # mapped, RFC 4291
        ("::ffff:0:0:0/96", "IPv4 inside IPv6"),  # translated, RFC 2765
        ("64:ff9b::/96", "IPv4 inside IPv6"),  # NAT64, RFC 6052
        ("64:ff9b:1::/48", "IPv4 inside IPv6"),  # local NAT64, RFC 8215
        ("2001::/32", "IPv4 inside IPv6"),  # Teredo, RFC 4380
        ("2002::/16", "IPv4 inside IPv6"),  # 6to4, RFC 3056
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("3fff::/20", "for documentation"),  # RFC 9637
        ("fc00::/7", "private"),  # Amazon's metadata service over IPv6 too
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),  # site-local, RFC 3879
        ("ff00::/8", "multicast"),
    )
)
_UNICAST = IPv6Network("2000::/3")  # all that was ever given out, RFC 4291
_ISATAP = (0x00005EFE, 0x02005EFE)  # the middle of an IPv6 address that holds an IPv4 one, RFC 5214


def fault_of(address: str) -> str | None:
    """Tell what an IP address is that must not be reached; None: it is one of the public internet."""
    found = _parsed(address)
    if found is None:
        return "not an IP address"
    for network, kind in _REFUSED:
        if found.version == network.version and found in network:
            return kind
    if isinstance(found, IPv6Address):
        if found not in _UNICAST:
            return "reserved"
        if int(found) >> 32 & 0xFFFFFFFF in _ISATAP:
            return "IPv4 inside IPv6"
    return None


def _parsed(address: str) -> Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None


def check_hosts(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns of hosts as they are compared: `a.test`, an address, or `*.a.test` for all names below one.

    Raises:
        ValueError: one of them is neither.
    """
    for pattern in patterns:
        if not _is_host(pattern.removeprefix("*.")) or (pattern.startswith("*.") and _parsed(pattern[2:])):
            raise ValueError(
                f"{pattern[:64]!r} is not accepted; accepted: a host's name, its address, or *.example.org for all "
                "names below one"
            )
    return tuple(_compared(pattern) for pattern in patterns)


def is_among(host: str, patterns: Sequence[str]) -> bool:
    """Tell whether a host is one of those that patterns name; they are as `check_hosts` returns them."""
    name = _compared(host)
    return any(name == p or (p.startswith("*.") and name.endswith(p[1:])) for p in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be reached: the public internet at some ports, and what an operator names besides."""

    hosts: frozenset[str] = frozenset()
    """Names that may be reached whatever address they have, in lower case."""
    networks: tuple[Network, ...] = ()
    ports: tuple[int, ...] = PORTS
    only: tuple[str, ...] = ()
    """Patterns of hosts: no other one is reached. Empty: all are."""
    denied: tuple[str, ...] = ()
    """Patterns of hosts that are not reached, whatever else is said of them; an address, by whatever name."""

    @classmethod
    def of(
        cls,
        allowed: Sequence[str],
        ports: Sequence[int] = PORTS,
        *,
        only: Sequence[str] = (),
        denied: Sequence[str] = (),
    ) -> Rules:
        """Read what an operator allows: names of hosts, addresses, and networks such as `10.1.0.0/16`.

        `only` and `denied` are patterns of hosts; see `check_hosts`.

        Raises:
            ValueError: one of them is neither.
        """
        hosts, networks = set(), []
        for text in allowed:
            try:
                networks.append(ip_network(text))
            except ValueError:
                if "/" in text or not _HOST.fullmatch(text) or ":" in text:
                    raise ValueError(
                        f"{text[:64]!r} is not accepted; accepted: a host's name, an address, or a network such as "
                        "10.1.0.0/16"
                    ) from None
                hosts.add(text.lower().rstrip("."))
        return cls(
            hosts=frozenset(hosts), networks=tuple(networks), ports=tuple(ports), only=check_hosts(only),
            denied=check_hosts(denied),
        )  # fmt: skip

    def check_address(self, host: str, port: int, address: str) -> None:
        """Refuse to connect to an address that `host` was found to have.

        Raises:
            AddressRefused: it must not be reached, or not at this port.
        """
        self._check_place(host, port)
        if is_among(address, self.denied):
            raise AddressRefused(f"{host} is not reached: its address is denied by the settings")
        fault = fault_of(address)
        if fault is not None and not self._is_allowed(host, address):
            raise AddressRefused(f"{host} is not reached: its address is {fault}")

    def _check_place(self, host: str, port: int) -> None:
        """Refuse what can be told without the address."""
        if is_among(host, self.denied):
            raise AddressRefused(f"{host} is not reached: it is denied by the settings")
        if self.only and not is_among(host, self.only):
            raise AddressRefused(f"{host} is not reached; accepted: {', '.join(self.only)}")
        if port not in self.ports:
            raise AddressRefused(f"Port {port} of {host} is not reached; accepted: {_listed(self.ports)}")

    def _is_allowed(self, host: str, address: str) -> bool:
        found = _parsed(address)
        within = found is not None and any(found.version == n.version and found in n for n in self.networks)
        return within or _compared(host) in self.hosts

    def check_url(self, name: str, url: str) -> str:
        """Return a URL that somebody gave under a `name`, if it may be asked for as far as can be told by reading it.

        Raises:
            BadRequest: it is malformed, or no address of the web.
            AddressRefused: it names a port or an address that is not reached.
        """
        parts = split_url(url)
        host = parts.hostname or ""
        if parts.scheme not in _DEFAULT_PORTS or not _is_host(host):
            raise BadRequest(f"{name}={_shown(url)!r} is not a URL; accepted: http://… or https://…")
        if len(url) > LONGEST_URL:
            raise BadRequest(f"{name} has {len(url)} characters; accepted: up to {LONGEST_URL}")
        if "@" in parts.netloc:
            raise BadRequest(f"{name}: a login in a URL is not accepted; accepted: a secret in its path or query")
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        if _parsed(host) is not None:
            self.check_address(host, port, host)
        else:  # its addresses are looked up when it is connected to
            self._check_place(host, port)
        return url


def _shown(url: str) -> str:
    """Return how something begins that is no URL, without what may be a login or a secret in a query."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])[:64]


def _compared(host: str) -> str:
    """Return the one text of a name or address that can be written in several ways."""
    found = _parsed(host)
    return str(found) if found is not None else host.lower().rstrip(".")


def _is_host(host: str) -> bool:
    """Tell whether this is a name or an address; not one of the ways in which numbers are read as addresses too.

    Source: WHATWG URL, "ends in a number checker".
    """
    labels = host.rstrip(".").split(".")
    numeric = bool(_NUMBER.fullmatch(labels[-1])) or ":" in host
    return bool(_HOST.fullmatch(host)) and (not numeric or _parsed(host) is not None)


def split_url(url: str) -> SplitResult:
    """Take a URL apart; all parts are empty when it cannot be, or when it holds what no URL does."""
    empty = SplitResult("", "", "", "", "")
    if not url.isascii() or not url.isprintable() or set(' "<>\\^`{|}') & set(url):
        return empty
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return empty
    return parts


def _listed(ports: Sequence[int]) -> str:
    return ", ".join(str(port) for port in ports)
