"""Replicas and callbacks as they are set: in TOML and the environment, with faults told and secrets kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lazypix.composition import make_replicas
from lazypix.errors import SettingsError
from lazypix.replicas.layout import IMAGESERVER, OwnKeys, Templates
from lazypix.settings import Settings, load, shown

SECRET = "hush-hush-hush"


def one(**replica: Any) -> Settings:
    return load({"replicas": [{"name": "one", "store": "s3://bucket"} | replica]}, {})


def test_replicas_come_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "lazypix.toml"
    file.write_text(
        '[[replicas]]\nname = "bos"\nprofile = "bos"\nstore = "s3://images/a?region=gz"\naccess_key = "k"\n'
        f'secret_key = "{SECRET}"\n[[replicas]]\nname = "disk"\nstore = "file:///srv/copies"\nwhat = "all"\n'
    )
    settings = load({}, {"LAZYPIX_CONFIG": str(file)})
    bos, disk = settings.replicas
    assert (bos.name, bos.what, bos.secrets) == ("bos", "named", {"access_key": "k", "secret_key": SECRET})
    assert (disk.name, disk.what, disk.secrets) == ("disk", "all", {})
    told = json.dumps(shown(settings))
    assert SECRET not in told
    assert "images/a?region=gz" in told
    assert SECRET not in repr(settings)


def test_replicas_come_from_the_environment_as_json() -> None:
    given = json.dumps([{"name": "one", "store": "s3://bucket", "secret_key": SECRET}])
    assert load({}, {"LAZYPIX_REPLICAS": given}).replicas[0].store == "s3://bucket"
    with pytest.raises(SettingsError, match="LAZYPIX_REPLICAS is not JSON") as caught:
        load({}, {"LAZYPIX_REPLICAS": given[:-1]})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "store", "address"),
    [
        ("bos", "s3://b",
         "s3://b?region=bj&checksum=none&endpoint=https://b.s3.bj.bcebos.com&virtual_hosted=true"),
        ("bos", "s3://b/p?region=su",
         "s3://b/p?region=su&checksum=none&endpoint=https://b.s3.su.bcebos.com&virtual_hosted=true"),
        ("bos", "s3://b?endpoint=http://127.0.0.1:1", "s3://b?region=bj&checksum=none&endpoint=http://127.0.0.1:1"),
        ("kodo", "s3://b", "s3://b?region=cn-east-1&checksum=none&endpoint=https://s3.cn-east-1.qiniucs.com"),
        ("kodo", "s3://b?region=cn-south-1&checksum=SHA256",
         "s3://b?region=cn-south-1&checksum=SHA256&endpoint=https://s3.cn-south-1.qiniucs.com"),
        ("kodo", "s3://b?endpoint=http://127.0.0.1:1", "s3://b?region=cn-east-1&checksum=none&endpoint=http://127.0.0.1:1"),
        (None, "s3://b?region=x", "s3://b?region=x"),
    ],
)  # fmt: skip
def test_a_profile_fills_in_what_is_missing(profile: str | None, store: str, address: str) -> None:
    settings = one(profile=profile, store=store, access_key="k", secret_key=SECRET)
    assert settings.replicas[0].address == address
    (replica,) = make_replicas(settings)
    assert SECRET not in repr(replica)
    replica.store.close()


@pytest.mark.parametrize(
    ("profile", "store", "asked"),
    [
        ("bos", "s3://photos/a?region=gz", "https://photos.s3.gz.bcebos.com/a/image/cat.jpg?"),
        ("kodo", "s3://photos", "https://s3.cn-east-1.qiniucs.com/photos/image/cat.jpg?"),
    ],
)
def test_a_profiles_store_is_asked_in_the_form_that_its_service_takes(profile: str, store: str, asked: str) -> None:
    (replica,) = make_replicas(one(profile=profile, store=store, access_key="k", secret_key=SECRET))
    assert (replica.store.url("image/cat.jpg", expires_s=60) or "").startswith(asked)
    replica.store.close()


@pytest.mark.parametrize(
    ("given", "layout"),
    [
        ({}, OwnKeys()), ({"profile": "bos"}, IMAGESERVER), ({"layout": "imageserver"}, IMAGESERVER),
        ({"profile": "kodo", "layout": "lazypix"}, OwnKeys()),
        ({"variant": "v/{width}/{height}/{ident}.jpg"},
         Templates(original_template="image/{ident}.jpg", variant_template="v/{width}/{height}/{ident}.jpg")),
    ],
)  # fmt: skip
def test_keys_are_the_librarys_own_or_imageservers(given: dict[str, Any], layout: object) -> None:
    (replica,) = make_replicas(one(**given))
    assert replica.layout == layout
    replica.store.close()


def test_the_one_replica_is_one_of_them(tmp_path: Path) -> None:
    settings = load({"replica": f"file://{tmp_path}/copies", "key_prefix": "p/", "key_shard": 2}, {})
    (replica,) = make_replicas(settings)
    assert (replica.name, replica.what) == ("replica", "all")
    assert replica.layout.original("cat", "jpg") == "p/at/cat/origin.jpg"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "A b"}, "replicas[0].name='A b': must be 1 to 32"), ({"what": "some"}, "replicas[0].what='some'"),
        ({"profile": "aws"}, "replicas[0].profile='aws'"), ({"layout": "flat"}, "replicas[0].layout='flat'"),
        ({"store": "file:///srv", "profile": "bos"}, "goes with a store s3://"),
        ({"variant": "{width}{ident}"}, "kept apart"), ({"variant": "{id}"}, "unknown placeholder {id}"),
        ({"original": "{ident}.jpg", "layout": "lazypix"}, "no templates"),
        ({"nme": "x"}, "replicas[0].nme: there is no such setting; accepted: name, store"),
    ],
)  # fmt: skip
def test_faults_are_told_without_secrets(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        one(access_key=SECRET, secret_key=SECRET, **given)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"secret_key": [SECRET]}, {"secret_key": {"is": SECRET}}, {"access_key": 1234567}])
def test_a_secret_of_the_wrong_type_is_not_told_either(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        one(**wrong)
    assert SECRET not in str(caught.value)
    assert "1234567" not in str(caught.value)
    assert "secret_key" in str(caught.value) or "access_key" in str(caught.value)


def test_two_of_one_name_are_refused() -> None:
    two = [{"name": "one", "store": "s3://a"}, {"name": "one", "store": "s3://b"}]
    with pytest.raises(SettingsError, match="two have one name"):
        load({"replicas": two}, {})
    with pytest.raises(SettingsError, match="two have one name"):
        load({"replicas": [{"name": "replica", "store": "s3://a"}], "replica": "s3://b"}, {})


def test_a_wrong_store_is_told_with_the_replicas_name() -> None:
    for store in ("nonsense", "s3://b?colour=red", "s3://key:secret@b"):
        with pytest.raises(SettingsError, match="replicas: one: ") as caught:
            make_replicas(one(store=store))
        assert "key:secret" not in str(caught.value)


def test_callbacks_are_set() -> None:
    settings = load(
        {},
        {
            "LAZYPIX_CALLBACK_SECRET": f"whsec_{'A' * 32} another-secret-of-24-bytes",
            "LAZYPIX_OUTBOUND_ALLOW": "hooks.internal, 10.1.0.0/16", "LAZYPIX_OUTBOUND_PORTS": "443,8443",
            "LAZYPIX_CALLBACK_METHOD": "GET",
        },
    )  # fmt: skip
    assert settings.callback_secrets == [bytes(24), b"another-secret-of-24-bytes"]
    assert settings.outbound_allow == ("hooks.internal", "10.1.0.0/16")
    assert (settings.outbound_ports, settings.callback_method) == ((443, 8443), "GET")
    assert load({}, {}).callback_secrets == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"callback_secret": "too-short-to-be-one"}, "callback_secret=********: a secret must have at least 24 bytes"),
        ({"callback_method": "PUT"}, "callback_method"), ({"outbound_allow": ["10.0.0.1/8"]}, "such as 10.1.0.0/16"),
        ({"outbound_ports": [0]}, "outbound_ports"), ({"outbound_ports": ["many"]}, "outbound_ports"),
    ],
)  # fmt: skip
def test_faults_of_callbacks_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(given, {})
    assert said in str(caught.value)
    assert "too-short" not in str(caught.value)
