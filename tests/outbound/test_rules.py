"""Which addresses and URLs may be reached."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazypix.errors import AddressRefused, BadRequest
from lazypix.outbound.rules import LONGEST_URL, Rules, check_hosts, fault_of

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15", "168.63.129.17",
    "2001:200::1", "2400:cb00::1", "2606:4700:4700::1111", "2a00:1450:4001::8", "2003::1", "3ffe:ffff::1",
]  # fmt: skip
REFUSED = [
    ("0.0.0.0", "unspecified"), ("0.255.255.255", "unspecified"),
    ("10.0.0.0", "private"), ("10.255.255.255", "private"),
    ("100.64.0.0", "shared"), ("100.127.255.255", "shared"), ("100.100.100.200", "shared"),
    ("127.0.0.1", "loopback"), ("127.255.255.255", "loopback"),
    ("168.63.129.16", "metadata"), ("169.254.169.254", "link-local"), ("169.254.0.0", "link-local"),
    ("172.16.0.0", "private"), ("172.31.255.255", "private"), ("192.0.0.192", "reserved"), ("192.0.2.1", "documentation"),
    ("192.88.99.1", "reserved"), ("192.168.0.0", "private"), ("192.168.255.255", "private"),
    ("198.18.0.0", "benchmarks"), ("198.19.255.255", "benchmarks"), ("198.51.100.7", "documentation"),
    ("203.0.113.9", "documentation"), ("224.0.0.0", "multicast"), ("239.255.255.255", "multicast"),
    ("240.0.0.0", "reserved"), ("255.255.255.255", "reserved"),
    ("::", "unspecified"), ("::1", "loopback"), ("::8.8.8.8", "IPv4 inside"), ("::127.0.0.1", "IPv4 inside"),
    ("::ffff:127.0.0.1", "IPv4 inside"), ("::ffff:8.8.8.8", "IPv4 inside"), ("::ffff:0:10.0.0.1", "IPv4 inside"),
    ("64:ff9b::10.0.0.1", "IPv4 inside"), ("64:ff9b::a9fe:a9fe", "IPv4 inside"), ("64:ff9b:1::10.0.0.1", "IPv4 inside"),
    ("64:ff9b:1:ffff::1", "IPv4 inside"), ("2002:7f00:1::", "IPv4 inside"), ("2002:a00:1::1", "IPv4 inside"),
    ("2001:0:53aa:64c:0:fbff:fdff:fffd", "IPv4 inside"), ("2001:2::1", "reserved"), ("2001:20::1", "reserved"),
    ("2606:4700::5efe:10.0.0.1", "IPv4 inside"), ("2606:4700::200:5efe:127.0.0.1", "IPv4 inside"),
    ("2001:db8::1", "documentation"), ("3fff::1", "documentation"), ("3fff:fff:ffff::1", "documentation"),
    ("fc00::1", "private"), ("fd00:ec2::254", "private"), ("fe80::1", "link-local"), ("fe80::1%eth0", "link-local"),
    ("febf::1", "link-local"), ("fec0::1", "private"), ("ff02::1", "multicast"), ("ffff::1", "multicast"),
    ("100::1", "reserved"), ("4000::1", "reserved"), ("5f00::1", "reserved"), ("1::1", "reserved"),
    ("localhost", "not an IP"), ("", "not an IP"), ("127.1", "not an IP"), ("0177.0.0.1", "not an IP"),
    ("2130706433", "not an IP"), ("0x7f000001", "not an IP"), ("1.2.3.4/32", "not an IP"),
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_reached(address: str) -> None:
    assert fault_of(address) is None
    Rules().check_address("host.test", 443, address)


@pytest.mark.parametrize(("address", "kind"), REFUSED)
def test_all_else_is_not(address: str, kind: str) -> None:
    assert kind in (fault_of(address) or "")
    with pytest.raises(AddressRefused, match=r"host\.test is not reached"):
        Rules().check_address("host.test", 443, address)


@given(st.integers(0, 2**32 - 1))
def test_no_ipv4_address_is_reached_in_the_clothes_of_ipv6(value: int) -> None:
    inside = [0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x64FF9B0001 << 80, 0x2001 << 112]
    for prefix in inside:
        assert fault_of(str(IPv6Address(prefix | value))) is not None
    assert fault_of(str(IPv6Address(0x2002 << 112 | value << 80))) is not None


@given(st.integers(0, 2**32 - 1))
def test_what_is_reached_is_global_for_python_too(value: int) -> None:
    address = IPv4Address(value)
    if fault_of(str(address)) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.integers(0, 2**128 - 1))
def test_the_same_goes_for_ipv6(value: int) -> None:
    address = IPv6Address(value)
    if fault_of(str(address)) is None:
        assert address.is_global
        assert value >> 125 == 1


def test_hosts_and_networks_of_ones_own_can_be_allowed() -> None:
    rules = Rules.of(["Hooks.Example.", "10.1.0.0/16", "fd00::5", "127.0.0.1"])
    rules.check_address("hooks.example", 80, "192.168.1.1")
    rules.check_address("HOOKS.example.", 80, "::1")
    rules.check_address("any.test", 80, "10.1.255.255")
    rules.check_address("any.test", 80, "fd00::5")
    for host, address in (
        ("any.test", "10.2.0.0"), ("any.test", "fd00::6"), ("any.test", "127.0.0.2"), ("any.test", "::ffff:10.1.0.1"),
        ("hooks.example.evil.test", "10.9.9.9"), ("sub.hooks.example", "10.9.9.9"),
    ):  # fmt: skip
        with pytest.raises(AddressRefused):
            rules.check_address(host, 80, address)


@pytest.mark.parametrize("text", ["10.1.0.1/16", "10.0.0.0/33", "ho st", "", "a/b", "http://a", "a:80", "*.example"])
def test_what_is_allowed_is_a_host_or_a_network(text: str) -> None:
    with pytest.raises(ValueError, match="accepted: a host's name"):
        Rules.of([text])


def test_some_hosts_only_can_be_allowed_or_denied() -> None:
    rules = Rules.of(
        ["10.0.0.1"], only=["Photos.Example.", "*.photos.example", "10.0.0.1"], denied=["bad.photos.example"]
    )
    for host, address in (
        ("photos.example", "1.1.1.1"), ("PHOTOS.example.", "1.1.1.1"), ("a.b.photos.example", "1.1.1.1"),
        ("10.0.0.1", "10.0.0.1"),
    ):  # fmt: skip
        rules.check_address(host, 443, address)
        rules.check_url("url", f"https://{host}/")
    for host, said in (
        ("bad.photos.example", "denied"), ("Bad.Photos.Example.", "denied"), ("evilphotos.example", r"\*\.photos"),
        ("photos.example.evil.test", "accepted: photos.example"), ("1.1.1.1", "accepted: photos.example"),
    ):  # fmt: skip
        with pytest.raises(AddressRefused, match=said):
            rules.check_address(host, 443, "1.1.1.1")
        with pytest.raises(AddressRefused, match=said):
            rules.check_url("url", f"https://{host}/")
    with pytest.raises(AddressRefused, match="private"):  # no pattern makes an address public
        rules.check_address("photos.example", 443, "10.0.0.2")
    with pytest.raises(AddressRefused, match="denied"):  # before what is allowed
        Rules.of(["10.0.0.1"], denied=["10.0.0.1"]).check_address("10.0.0.1", 443, "10.0.0.1")


def test_an_address_is_denied_by_whatever_name_and_in_any_spelling() -> None:
    rules = Rules.of([], denied=["93.184.216.34", "2606:2800:220:0::1946", "1.1.1.1"])
    for host, address in (
        ("93.184.216.34", "93.184.216.34"), ("alias.test", "93.184.216.34"), ("alias.test", "2606:2800:220::1946"),
        ("2606:2800:0220:0:0:0:0:1946", "2606:2800:220::1946"),
    ):  # fmt: skip
        with pytest.raises(AddressRefused, match="denied"):
            rules.check_address(host, 443, address)
    for host in ("[2606:2800:220:0:0::1946]", "[2606:2800:0220::1946]", "1.1.1.1"):
        with pytest.raises(AddressRefused, match="denied"):
            rules.check_url("url", f"https://{host}/")
    rules.check_url("url", "https://a.name.test/")
    Rules.of([], only=["2606:4700:0::1"]).check_url("url", "https://[2606:4700::0001]/")


@pytest.mark.parametrize(
    "pattern", ["", "*", "*.", "a.*.test", "*a.test", "http://a", "a:80", "a/b", "*.10.0.0.1", "10.1"]
)
def test_a_pattern_is_a_host_or_all_below_one(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"accepted: a host's name, its address, or \*\.example\.org"):
        check_hosts([pattern])


@pytest.mark.parametrize("port", [22, 25, 6379, 8080, 0])
def test_only_some_ports_are_reached(port: int) -> None:
    with pytest.raises(AddressRefused, match="accepted: 80, 443"):
        Rules().check_address("host.test", port, "1.1.1.1")
    with pytest.raises(AddressRefused, match="accepted: 80, 443"):
        Rules.of(["host.test"]).check_address("host.test", port, "10.0.0.1")  # a host that is allowed too
    Rules.of([], [port]).check_address("host.test", port, "1.1.1.1")


@pytest.mark.parametrize(
    "url",
    ["http://host.test", "https://host.test/a?b=c#d", "http://host.test:443/", "https://1.1.1.1/", "http://[2606:4700::1]/",
     "HTTP://Host.Test/", "https://a_b.host.test/%20", "http://host.test:/"],
)  # fmt: skip
def test_urls_of_the_web_are_accepted(url: str) -> None:
    assert Rules().check_url("callback", url) == url


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("", BadRequest, "http://…"), ("host.test", BadRequest, "http://…"), ("ftp://host.test/", BadRequest, "http://…"),
        ("file:///etc/passwd", BadRequest, "http://…"), ("http://", BadRequest, "http://…"), ("http://[", BadRequest, "http://…"),
        ("http://host test/", BadRequest, "http://…"), ("http://host.test/\r\nx: y", BadRequest, "http://…"),
        ("http://b\u00fccher.test/", BadRequest, "http://…"), ("http://host.test:99999/", BadRequest, "http://…"),
        ("http://host.test\\@evil.test/", BadRequest, "http://…"), ("javascript:alert(1)", BadRequest, "http://…"),
        ("http://[fe80::1%25eth0]/", BadRequest, "http://…"), ("http://-.test/", BadRequest, "http://…"), ("http://2130706433/", BadRequest, "http://…"),
        ("http://127.1/", BadRequest, "http://…"), ("http://0x7f.1/", BadRequest, "http://…"), ("http://0177.0.0.1/", BadRequest, "http://…"),
        ("http://0x7f000001./", BadRequest, "http://…"), ("http://1.2.3.4.5/", BadRequest, "http://…"), ("http://[::1::]/", BadRequest, "http://…"),
        ("http://name:secret@host.test/", BadRequest, "a login"), ("http://name@host.test/", BadRequest, "a login"),
        ("http://host.test/" + "a" * LONGEST_URL, BadRequest, str(LONGEST_URL)),
        ("http://host.test:22/", AddressRefused, "80, 443"), ("http://127.0.0.1/", AddressRefused, "loopback"),
        ("http://[::1]/", AddressRefused, "loopback"), ("http://[::ffff:7f00:1]/", AddressRefused, "IPv4 inside"),
        ("http://169.254.169.254/latest/meta-data/", AddressRefused, "link-local"),
    ],
)  # fmt: skip
def test_others_are_refused_and_what_is_accepted_is_said(url: str, error: type[BadRequest], said: str) -> None:
    with pytest.raises(error) as caught:
        Rules().check_url("callback", url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value).replace("a secret in its path", "")
