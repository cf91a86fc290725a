"""Signed links: whatever is changed is refused, and no scope can be widened."""

from __future__ import annotations

import base64
import copy
import hmac
import pickle
import string
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.test_transform import transforms

from lazypix.addresses import Addresses
from lazypix.dialects import Target, Wanted
from lazypix.dialects.native import MOUNT, address
from lazypix.dialects.ordered import parse, with_presets
from lazypix.errors import BadRequest, BadSignature, BadTransform, Forbidden, LazypixError, LinkExpired, SettingsError
from lazypix.gate import Gate, Mode
from lazypix.plan import Limits, Probe, make_plan
from lazypix.presets import Presets
from lazypix.signing.links import EXACT, KeyRing, LinkKey, LinkScope, new_key, split_query
from lazypix.transform import Transform

NEW, OLD = "b2:a-new-secret-of-many-characters", "a1:an-old-secret-of-many-characters"
RING = KeyRing.of([NEW, OLD])
PRESETS = Presets.read({"thumb": "200x200,fit=cover", "card": "640x480,fit=cover,format=webp"})
NOW = 1_800_000_000

PRINTABLE = "".join(chr(code) for code in range(32, 127))
idents = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
queries = st.sampled_from(
    ["", "width=300&height=200", "width=300&height=%3C200", "rotate=90", "a=&b", "&", "x=?&y=/"]
)
paths = st.builds(lambda ident, stem: f"{MOUNT}{stem}/{ident}.webp", idents, st.sampled_from(["300x200", "full"]))
scopes = st.sampled_from([EXACT, LinkScope("p"), LinkScope("800x600"), LinkScope("1x1")])
expiries = st.one_of(st.none(), st.integers(NOW + 1, NOW + 10**9))


def gate(mode: Mode = "signed", ring: KeyRing = RING, now: float = NOW) -> Gate:
    return Gate(mode=mode, ring=ring, presets=PRESETS, clock=lambda: now)


def admitted(door: Gate, target: str) -> int | None:
    """Have a raw target pass, as delivery does: parsed first."""
    path, _, query = target.partition("?")
    wanted = parse(Target.split(path, split_query(query)[0], MOUNT), with_presets(PRESETS))
    return door.admit(path, query, wanted)


def refused(door: Gate, target: str) -> bool:
    try:
        admitted(door, target)
    except LazypixError as error:
        return 400 <= error.status < 500
    return False


def target_of(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


# --- any change is refused --------------------------------------------------------------------------------------


@st.composite
def changes(draw: st.DrawFn) -> Callable[[str], str]:
    """A change of one or two characters at a place that is drawn."""
    kind = draw(st.sampled_from(["change", "remove", "add", "swap", "cut", "double"]))
    place, other = draw(st.integers(0, 10_000)), draw(st.sampled_from(PRINTABLE))

    def change(text: str) -> str:
        at = place % len(text)
        match kind:
            case "change":
                return text[:at] + other + text[at + 1 :]
            case "remove":
                return text[:at] + text[at + 1 :]
            case "add":
                return text[:at] + other + text[at:]
            case "swap" if at + 1 < len(text):
                return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            case "cut":
                return text[:at]
        return text + text[at:]

    return change


@given(paths, queries, expiries, changes())
def test_any_changed_byte_of_an_exact_link_is_refused(
    path: str, query: str, expires_at: int | None, change: Callable[[str], str]
) -> None:
    signed = RING.sign(target_of(path, query), expires_at=expires_at)
    changed = change(signed)
    assume(changed != signed)
    path, _, query = changed.partition("?")
    try:
        assert RING.verify(path, query) is None  # no signature is left of it
        assert not any(part.startswith("s=") for part in query.split("&"))
    except BadSignature:
        pass


@given(paths, expiries, scopes, changes())
def test_any_changed_byte_of_a_signature_is_refused(
    path: str, expires_at: int | None, scope: LinkScope, change: Callable[[str], str]
) -> None:
    unsigned, _, value = RING.sign(path, scope=scope, expires_at=expires_at, subject="/image/cat").partition("s=")
    changed = change(value)
    assume(changed != value)
    with pytest.raises(BadSignature):
        RING.verify(path, f"{unsigned.partition('?')[2]}s={changed}", subject="/image/cat")


@given(paths, paths, queries, queries, scopes, scopes, expiries, expiries)
def test_no_part_of_a_signature_fits_another_link(
    path: str, other_path: str, query: str, other_query: str, scope: LinkScope, other_scope: LinkScope,
    expires_at: int | None, other_expires_at: int | None,
) -> None:  # fmt: skip
    """Parts of two good links, put together in any way, are good only where they make one of the two."""
    target, other = target_of(path, query), target_of(other_path, other_query)
    one = RING.sign(target, scope=scope, expires_at=expires_at, subject="/a")
    two = KeyRing.of([OLD]).sign(other, scope=other_scope, expires_at=other_expires_at, subject="/b")
    first, second = (text.rpartition("s=")[2].split(".") for text in (one, two))
    for taken in range(1, 15):  # of the second: key id, expiry, scope, MAC
        mixed = [second[i] if taken >> i & 1 else first[i] for i in range(4)]
        if mixed == first or (mixed == second and target == other and other_scope.is_exact):
            continue
        with pytest.raises(BadSignature):
            RING.verify(*split(f"{target}{'&' if query else '?'}s={'.'.join(mixed)}"), subject="/a")


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link + "&",
        lambda link: link + "&width=9",
        lambda link: link + "&" + link.partition("?")[2],
        lambda link: link.replace("?s=", "?s=x&s="),
        lambda link: link.replace("?s=", "?%73=x&s="),
        lambda link: link.replace("?s=", "?%73="),
        lambda link: link.replace("?s=", "?S="),
        lambda link: link.replace("?s=", "?&s="),
        lambda link: link.replace("?s=", "??s="),
        lambda link: link.replace("/cat", "/%63at"),
        lambda link: link.replace("/300x200", "/0300x200"),
        lambda link: link.replace("/300x200", "//300x200"),
        lambda link: link.replace(".webp", ".WEBP"),
        lambda link: link + "=",
        lambda link: link + "%20",
        lambda link: link.replace("?s=", "#?s="),
        lambda link: link.partition("?")[0],
        lambda link: link.partition("?")[0] + "?s=",
        lambda link: link.partition("?")[0] + "?s",
    ],
)
def test_other_spellings_of_the_same_are_refused_too(change: Callable[[str], str]) -> None:
    link = RING.sign("/image/300x200/cat.webp")
    assert admitted(gate(), link) is None
    assert refused(gate(), change(link))


def test_the_signature_of_something_else_is_none_of_a_link() -> None:
    key = RING.keys[0]
    foreign = hmac.digest(key.secret, b"/image/300x200/cat.webp?s=b2.0.x", "sha256")
    mac = base64.urlsafe_b64encode(foreign).decode().rstrip("=")
    assert refused(gate(), f"/image/300x200/cat.webp?s=b2.0.x.{mac}")


# --- scopes ----------------------------------------------------------------------------------------------------

probes = st.builds(
    Probe, format=st.sampled_from(["jpg", "png", "gif"]), width=st.integers(1, 9000), height=st.integers(1, 9000),
    orientation=st.integers(1, 8),
)  # fmt: skip
NO_LIMITS = Limits(max_pixels=10**18, max_side=10**9)


@given(st.integers(1, 2000), st.integers(1, 2000), transforms(), probes)
def test_a_box_is_never_exceeded_whatever_the_image(width: int, height: int, wanted: Transform, probe: Probe) -> None:
    scope = LinkScope.parse(f"{width}x{height}")
    try:
        gate().check_scope(scope, wanted)
    except BadSignature:
        return
    decided = wanted if wanted.format else wanted.as_format("png")
    result = make_plan(decided, probe, NO_LIMITS).size
    assert result[0] <= width
    assert result[1] <= height
    assert wanted.crop is None
    assert not wanted.is_identity


@given(idents, transforms(), scopes, transforms())
def test_what_a_link_lets_pass_is_within_its_scope(
    ident: str, wanted: Transform, scope: LinkScope, other: Transform
) -> None:
    """A link's signature, put behind the address of another transform of the same image."""
    addresses = Addresses(gate=gate())
    try:
        link = addresses.url(ident, wanted, scope={"x": "exact", "p": "presets"}.get(scope.code, scope.code))
    except BadSignature:
        return  # the link was not even written
    widened = address(ident, other) + "?" + link.partition("?")[2]
    if refused(gate(), widened):
        return
    if scope.is_exact:
        assert address(ident, other) == link.partition("?")[0]
    elif scope.box is None:
        assert PRESETS.allow(other)
    else:
        gate().check_scope(scope, other)


@given(idents, idents, scopes)
def test_a_link_is_good_for_its_image_only(ident: str, other: str, scope: LinkScope) -> None:
    assume(ident != other)
    name = {"x": "exact", "p": "presets"}.get(scope.code, scope.code)
    link = Addresses(gate=gate()).url(ident, "1x1" if scope.code == "1x1" else "@thumb", scope=name)
    assert admitted(gate(), link) is None
    path, _, query = link.partition("?")
    assert refused(gate(), f"{path.replace(f'/{ident}.', f'/{other}.')}?{query}")


@pytest.mark.parametrize(
    ("scope", "text", "passes"),
    [
        ("800x600", "800x600", True),
        ("800x600", "400x300,fit=cover,gravity=north", True),
        ("800x600", "400x300,dpr=2", True),
        ("800x600", "400x300,dpr=2.01", False),
        ("800x600", "801x600", False),
        ("800x600", "600x601,fit=top", False),
        ("800x600", "600x800,rotate=90", False),
        ("800x600", "300x", False),
        ("800x600", "x300", False),
        ("800x600", "300x200,fit=outside", False),
        ("800x600", "300x200,crop=0:0:10:10", False),
        ("800x600", "800x600,fit=cover,gravity=attention", True),
        ("800x600", "300x200,fit=cover,gravity=0.5:0.5", True),  # the middle
        ("800x600", "300x200,fit=cover,gravity=0.2:0.5", False),
        ("800x600", "full", False),
        ("800x600", "rotate=90", False),
        ("presets", "@thumb", True),
        ("presets", "200x200,fit=cover,format=avif", True),
        ("presets", "@card", True),
        ("presets", "640x480,fit=cover", False),
        ("presets", "640x480,fit=cover,format=jpg", False),
        ("presets", "201x200,fit=cover", False),
        ("presets", "200x200,fit=cover,quality=9", False),
        ("presets", "full", False),
    ],
)
def test_scopes(scope: str, text: str, *, passes: bool) -> None:
    wanted = PRESETS.transform(text)
    query = RING.sign("/x", scope=LinkScope.parse(scope), subject="/image/cat").partition("?")[2]
    assert refused(gate(), f"{address('cat', wanted)}?{query}") is not passes
    if not passes:
        with pytest.raises(BadSignature):
            Addresses(gate=gate()).url("cat", wanted, scope=scope)


def test_what_is_no_image_needs_an_exact_link() -> None:
    addresses, target = Addresses(gate=gate()), "/remote/300x200.webp?url=https%3A%2F%2Fimg.example%2Fa.jpg"
    link = addresses.of_target(target, expires_s=300)
    assert gate().admit_path(*split(link)) == NOW + 300
    for scope in ("p", "800x600"):
        with pytest.raises(BadSignature):
            gate().admit_path(*split(RING.sign(target, scope=LinkScope(scope), subject="/remote/300x200.webp")))
    with pytest.raises(BadSignature):
        gate().admit_path(*split(link.replace("a.jpg", "b.jpg")))
    with pytest.raises(BadSignature):
        gate().admit_path(*split(target))
    assert gate("presets").admit_path(*split(target), PRESETS.transform("@thumb")) is None
    assert Addresses(base_url="/p").of_target(target) == f"/p{target}"


def split(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return path, query


# --- modes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "target", "passes"),
    [
        ("open", "/image/300x200/cat.webp", True),
        ("open", "/image/cat.webp", True),
        ("signed", "/image/300x200/cat.webp", False),
        ("signed", "/image/@thumb/cat.webp", False),
        ("signed", "/image/cat.jpg", False),
        ("presets", "/image/300x200/cat.webp", False),
        ("presets", "/image/cat.jpg", False),
        ("presets", "/image/cat.tif", False),
        ("presets", "/image/full/cat.jpg", False),
        ("presets", "/image/cat.jpg?width=200&height=200", False),
        ("presets", "/image/@thumb/cat.webp", True),
        ("presets", "/image/%40thumb/cat.webp", True),
        ("presets", "/image/200x200,fit=cover/cat.avif", True),
        ("presets", "/image/cat.webp?width=200&height=200&fit=cover", True),
        ("presets", "/image/@card/cat", True),
        ("presets", "/image/@card/cat.webp", True),
    ],
)
def test_who_may_ask_without_a_signature(mode: Mode, target: str, *, passes: bool) -> None:
    assert refused(gate(mode), target) is not passes
    link = RING.sign(target)
    assert admitted(gate(mode), link) is None  # with one, all
    assert refused(gate(mode), link[:-1] + ("A" if link[-1] != "A" else "B"))  # and a broken one is refused in all
    assert refused(gate(mode, KeyRing()), link)  # also where nobody has a key


def test_originals_are_given_out_where_the_whole_image_is_a_preset() -> None:
    door = replace(gate("presets"), presets=Presets.read({"whole": "full"}))
    for name in ("cat.jpg", "cat.tif", "cat.auto"):
        assert admitted(door, f"/image/{name}") is None


def test_an_unknown_preset_is_named_with_those_that_there_are() -> None:
    with pytest.raises(BadTransform, match=r"'@huge'; accepted: @thumb, @card"):
        admitted(gate("open"), "/image/@huge/cat.webp")
    with pytest.raises(BadTransform, match="there are no presets"):
        parse(Target.split("/image/@huge/cat.webp", "", MOUNT))
    with pytest.raises(BadRequest, match="contradicts"):
        admitted(gate("open"), "/image/@card/cat.jpg")


def test_faults_of_presets_are_told_all_at_once() -> None:
    with pytest.raises(BadTransform) as told:
        Presets.read({"Thumb": "200x200", "a": "200", "b": "1x1,colour=red", "c": "1x1"})
    for part in ("'Thumb' is no name", "a: Unknown token '200'", "b: Unknown option 'colour'"):
        assert part in str(told.value)


# --- expiry and keys --------------------------------------------------------------------------------------------


def test_a_link_ends_exactly_at_its_second() -> None:
    link = RING.sign("/image/300x200/cat.webp", expires_at=NOW)
    assert admitted(gate(now=NOW - 0.001), link) == NOW
    for now in (NOW, NOW + 0.001, NOW * 2):
        with pytest.raises(LinkExpired):
            admitted(gate(now=now), link)
    with pytest.raises(BadSignature):  # whose expiry nobody signed is not told that it expired
        admitted(gate(now=NOW), link[:-1])


@pytest.mark.parametrize(
    ("asked_s", "step_s", "now", "lasts_s"),
    [
        (3600, 300, NOW, 3600),
        (3600, 300, NOW + 1, 3899),
        (3600, 300, NOW + 299, 3601),
        (60, 300, NOW + 1, 119),
        (3600, 0, NOW + 0.5, 3600.5),
        (1.5, 300, NOW + 0.4, 1.6),
    ],
)
def test_an_expiry_is_rounded_up_so_that_pages_have_the_same_links_for_a_while(
    asked_s: float, step_s: int, now: float, lasts_s: float
) -> None:
    link = Addresses(gate=gate(now=now), expiry_step_s=step_s).url("cat", "300x200", expires_s=asked_s)
    expires_at = admitted(gate(now=now), link)
    assert expires_at is not None
    assert expires_at - now == pytest.approx(lasts_s)
    assert asked_s <= expires_at - now <= 2 * asked_s


@given(paths, scopes, expiries)
def test_a_new_key_does_not_break_old_links(path: str, scope: LinkScope, expires_at: int | None) -> None:
    before, during, after = KeyRing.of([OLD]), RING, KeyRing.of([NEW])
    link = split(before.sign(path, scope=scope, expires_at=expires_at, subject="/image/cat"))
    found = during.verify(*link, subject="/image/cat")
    assert found is not None
    assert (found.scope, found.expires_at) == (scope, expires_at)
    with pytest.raises(BadSignature):
        after.verify(*link, subject="/image/cat")
    fresh = split(during.sign(path))
    assert fresh[1].startswith("s=b2.")
    assert after.verify(*fresh) is not None


def test_a_key_is_one_by_its_id_and_its_secret() -> None:
    link = split(RING.sign("/image/cat.jpg"))
    with pytest.raises(BadSignature) as other_secret:
        KeyRing.of(["b2:another-secret-of-many-characters"]).verify(*link)
    with pytest.raises(BadSignature) as other_id:
        KeyRing.of([NEW.replace("b2", "c3")]).verify(*link)
    assert str(other_secret.value) == str(other_id.value)


@pytest.mark.parametrize("value", ["b2.0.x", "zz.0.x", "b2.0.p", "b2.zik0zj.800x600"])
def test_macs_are_compared_in_constant_time_also_for_keys_that_nobody_has(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def spy(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", spy)
    with pytest.raises(BadSignature):
        RING.verify("/image/300x200/cat.jpg", f"s={value}.{'A' * 43}", subject="/image/cat")
    assert compared == [(43, 43)]


@pytest.mark.parametrize(
    "text",
    ["", "k1", "k1:", "k1:short", "K1:" + "s" * 24, ":" + "s" * 24, "a" * 17 + ":" + "s" * 24, "k1:" + "s " * 20,
     "k1:" + "s," * 20, "k1:" + "ü" * 24],
)  # fmt: skip
def test_bad_keys_are_refused_without_being_told(text: str) -> None:
    with pytest.raises(ValueError, match="a key must be") as told:
        LinkKey.parse(text)
    secret = text.partition(":")[2]
    assert not secret or secret not in str(told.value)


def test_two_keys_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="two keys have one id"):
        KeyRing.of([NEW, NEW])


def test_fresh_keys_are_different_and_long() -> None:
    keys = [LinkKey.parse(new_key()) for _ in range(20)]
    assert len({key.id for key in keys}) == len({key.secret for key in keys}) == 20
    assert {len(key.secret) for key in keys} == {43}  # 32 bytes in base64
    assert LinkKey.parse(new_key("mine")).id == "mine"
    with pytest.raises(ValueError, match="a key must be"):
        new_key("Mine!")


def test_secrets_are_neither_shown_nor_pickled() -> None:
    addresses = Addresses(gate=gate())
    assert "secret" not in repr(addresses)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            way(RING)


# --- addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "text", "options", "written"),
    [
        ("open", "300x200", {}, "/p/image/300x200/cat.auto"),
        ("open", "@thumb", {"format": "webp"}, "/p/image/200x200,fit=cover/cat.webp"),
        ("open", "300x200", {"scope": "exact"}, "/p/image/300x200/cat.auto?s=b2.0.x."),
        ("signed", "300x200", {}, "/p/image/300x200/cat.auto?s=b2.0.x."),
        ("signed", "full", {"format": "jpg"}, "/p/image/cat.jpg?s=b2.0.x."),
        ("signed", "300x200", {"scope": "800x600", "expires_s": 300}, "/p/image/300x200/cat.auto?s=b2.tro94c.800x600."),
        ("presets", "@thumb", {}, "/p/image/200x200,fit=cover/cat.auto"),
        ("presets", "@card", {}, "/p/image/640x480,fit=cover/cat.webp"),
        ("presets", "@thumb", {"scope": "presets"}, "/p/image/200x200,fit=cover/cat.auto?s=b2.0.p."),
        ("presets", "300x200", {}, "/p/image/300x200/cat.auto?s=b2.0.x."),
    ],
)  # fmt: skip
def test_addresses_are_signed_where_they_must_be(
    mode: Mode, text: str, options: dict[str, str], written: str
) -> None:
    addresses = Addresses(base_url="/p/", gate=gate(mode))
    url = addresses.url("cat", text, **options)  # type: ignore[arg-type]
    assert url.startswith(written) if "?" in written else url == written
    admitted(gate(mode), url.removeprefix("/p"))
    assert addresses.plain("cat", text, format=options.get("format")) == url.partition("?")[0]


def test_what_cannot_be_signed_is_told() -> None:
    keyless = Addresses(gate=Gate(mode="presets", presets=PRESETS))
    assert keyless.url("cat", "@thumb") == "/image/200x200,fit=cover/cat.auto"
    for options in ({}, {"expires_s": 60}, {"scope": "exact"}):
        with pytest.raises(SettingsError, match="url_keys"):
            keyless.url("cat", "300x200", **options)
    signing = Addresses(gate=gate())
    for scope in ("800", "0x100", "full", "", "800x600x2"):
        with pytest.raises(BadRequest, match="accepted: exact, presets"):
            signing.url("cat", "300x200", scope=scope)
    for seconds in (0, -5, 1e12, float("nan")):
        with pytest.raises(BadRequest, match="expires_s"):
            signing.url("cat", "300x200", expires_s=seconds)
    for target in ("/a b", "/ä", "/a\n", "/a#b"):
        with pytest.raises(BadRequest, match="percent-encoded"):
            signing.of_target(target)
    with pytest.raises(BadRequest, match="signed already"):
        signing.of_target(signing.of_target("/a"))


@given(idents, transforms())
def test_what_is_written_is_what_is_read(ident: str, wanted: Transform) -> None:
    link = Addresses(gate=gate()).url(ident, wanted)
    path, query = split(link)
    assert parse(Target.split(path, split_query(query)[0], MOUNT)) == Wanted(ident=ident, transform=wanted)
    assert issubclass(BadSignature, Forbidden)


@pytest.mark.parametrize("expires_at", [0, -1])
def test_an_expiry_that_would_be_written_as_never_is_refused(expires_at: int) -> None:
    with pytest.raises(BadRequest, match=f"expires_at={expires_at} is not accepted"):
        RING.sign("/image/cat.jpg", expires_at=expires_at)
