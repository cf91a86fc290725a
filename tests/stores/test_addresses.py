"""Stores by their address: what is accepted, what is refused, and that no secret is told."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from lazypix.errors import SettingsError
from lazypix.stores.addresses import open_store
from lazypix.stores.beansdb import BeansdbStore
from lazypix.stores.local import LocalStore
from lazypix.stores.memory import MemoryStore
from lazypix.stores.objects import ObjectStore

SECRETS = {"access_key": "AKIAOPEN", "secret_key": "very-secret-thing"}
SESAME = "very-secret-thing"


def test_each_kind_of_address_opens_its_store(tmp_path: Path) -> None:
    with closing(open_store(f"file://{tmp_path}/a%20b")) as store:
        assert isinstance(store, LocalStore)
        assert store.root == tmp_path / "a b"
    assert isinstance(open_store("memory:"), MemoryStore)
    for address in (
        "s3://bucket",
        "s3://bucket/some/prefix?endpoint=http://127.0.0.1:1&region=x",
        "s3://b?virtual_hosted=true",
    ):
        assert isinstance(open_store(address, secrets=SECRETS), ObjectStore)
    assert isinstance(open_store("az://container/p?account=me", secrets={"secret_key": "c2VjcmV0"}), ObjectStore)
    with closing(open_store("beansdb://127.0.0.1:7900,127.0.0.1:7901/images?copies=2&writes=1")) as store:
        assert isinstance(store, BeansdbStore)


def test_nothing_is_connected_to_before_it_is_needed() -> None:
    store = open_store("s3://bucket/p?endpoint=http://127.0.0.1:1", secrets=SECRETS)
    assert store.local_path("a") is None
    assert store.url("a/b.jpg", expires_s=None) is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "file:///<folder>"),
        ("images", "'images' is not accepted"),
        ("ftp://host/x", "ftp"),
        ("file://elsewhere/images", "file:///<path>"),
        ("file:///", "file:///<path>"),
        ("file:///x?cache=1", "public_url"),
        ("s3:///x", "bucket is missing"),
        ("s3://bucket?nonsense=1", "unknown option 'nonsense'; accepted with s3:// are .*endpoint"),
        ("s3://bucket?timeout=soon", "timeout='soon' is not a number"),
        ("s3://AKIAOPEN:very-secret-thing@bucket/x", "do not belong"),
        ("az://container?region=x", "unknown option 'region'"),
        ("memory:x", "nothing more"),
        ("beansdb://127.0.0.1:1?ttl=5", "copies, writes, reads"),
        ("beansdb://127.0.0.1:1?copies=many", "copies, writes, reads"),
        ("s3://bucket?=", "unknown option"),
    ],
)  # fmt: skip
def test_a_wrong_address_is_told_with_what_is_accepted(address: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        open_store(address)
    assert SESAME not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["s3://bucket/p?endpoint=http://127.0.0.1:1&retries=0&timeout=1", "az://c?account=a"]
)
def test_no_text_of_a_store_holds_a_secret(address: str) -> None:
    secrets = SECRETS if address[:2] == "s3" else {"secret_key": SESAME}
    try:
        store = open_store(address, secrets=secrets)
    except SettingsError as error:
        told = [str(error), repr(error.__cause__)]
    else:
        told = [repr(store), str(store), str(vars(store))]
    assert SESAME not in " ".join(told)


def test_a_credential_that_a_service_does_not_have_is_refused() -> None:
    with pytest.raises(SettingsError, match="access_key"):
        open_store("gs://bucket", secrets=SECRETS)
