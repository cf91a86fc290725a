"""Settings: where they come from, who wins, and how faults are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazypix.errors import SettingsError
from lazypix.settings import Settings, load, shown

SECRET = "do-not-tell-anybody"


def test_the_environment_wins_over_the_file_and_arguments_win_over_both(tmp_path: Path) -> None:
    file = tmp_path / "lazypix.toml"
    file.write_text("port = 1\nqueue = 1\nworkers = 1\n")
    found = load({"port": 3, "host": None}, {"LAZYPIX_CONFIG": str(file), "LAZYPIX_PORT": "2", "LAZYPIX_QUEUE": "2"})
    assert (found.port, found.queue, found.workers, found.host) == (3, 2, 1, "127.0.0.1")


def test_the_file_in_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({}, {}).port == 8000
    (tmp_path / "lazypix.toml").write_text('port = 9\napi_keys = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"]\n')
    found = load({}, {})
    assert found.port == 9
    assert [key.get_secret_value() for key in found.api_keys] == ["a" * 16, "b" * 16]


def test_every_fault_is_reported_at_once_with_name_value_place_and_what_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text("max_sides = 10\nmax_frames = 0\nkey_prefix = '../x/'\n")
    environment = {
        "LAZYPIX_CONFIG": str(file),
        "LAZYPIX_PORT": "eighty",
        "LAZYPIX_HOST": "0.0.0.0",
        "LAZYPIX_URLS": "shut",
        "LAZYPIX_CACHE_BITES": "1",
        "LAZYPIX_UPLOADS": "-3",
    }
    with pytest.raises(SettingsError) as caught:
        load({}, environment)
    lines = str(caught.value).splitlines()
    for words in (
        ("max_sides", "odd.toml", "no such setting"),
        ("max_frames=0", "odd.toml", "greater than or equal to 1"),
        ("key_prefix='../x/'", "img/"),
        ("port='eighty'", "LAZYPIX_PORT", "integer"),
        ("host='0.0.0.0'", "needs api_keys"),
        ("urls='shut'", "LAZYPIX_URLS", "open"),
        ("LAZYPIX_CACHE_BITES", "no such setting"),
        ("uploads='-3'", "LAZYPIX_UPLOADS", "1"),
    ):
        assert any(all(word in line for word in words) for line in lines), (words, lines)


@pytest.mark.parametrize("text", ["port = ", "port = 1\nport = 2", "\x00"])
def test_a_file_that_is_no_toml_is_a_fault(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"bad\.toml"):
        load({}, {"LAZYPIX_CONFIG": str(file)})


def test_a_named_file_that_is_missing_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such file"):
        load({}, {"LAZYPIX_CONFIG": str(tmp_path / "none.toml")})


def test_secrets_are_never_shown() -> None:
    found = load({}, {"LAZYPIX_API_KEYS": f"{SECRET}, {SECRET}2"})
    assert len(found.api_keys) == 2
    for text in (repr(found), str(found), str(shown(found)), found.model_dump_json()):
        assert SECRET not in text
    with pytest.raises(SettingsError) as caught:
        load({"api_keys": {SECRET: 1}, "port": "x"}, {})
    assert SECRET not in str(caught.value)


KEY = "k1:" + "s" * 24


def test_who_may_ask_is_set_by_keys_and_presets() -> None:
    environment = {
        "LAZYPIX_URLS": "presets",
        "LAZYPIX_URL_KEYS": f"{KEY}, k2:{'t' * 24}",
        "LAZYPIX_PRESETS": '{"thumb": "200x200,fit=cover"}',
    }
    gate = load({}, environment).gate
    assert (gate.mode, [key.id for key in gate.ring.keys]) == ("presets", ["k1", "k2"])
    assert gate.presets.transform("@thumb").text == "200x200,fit=cover"
    assert load({}, {}).gate.mode == "open"


def test_faults_of_links_and_presets_are_told_all_at_once_and_no_secret_with_them() -> None:
    environment = {
        "LAZYPIX_URL_KEYS": f"{KEY},k2:{SECRET},k1:{'u' * 24}",
        "LAZYPIX_PRESETS": '{"Thumb": "200x200", "wide": "200", "odd": "20x20,colour=red"}',
        "LAZYPIX_URL_EXPIRY_STEP_S": "0",
    }
    with pytest.raises(SettingsError) as caught:
        load({}, environment)
    for words in ("url_keys=********", "'Thumb' is no name", "wide: Unknown token", "odd: Unknown option", "step_s"):
        assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "s" * 24 not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"urls": "signed"}, "urls='signed' needs url_keys"),
        ({"urls": "presets"}, "urls='presets' needs presets"),
        ({"urls": "presets", "url_keys": [KEY]}, "urls='presets' needs presets"),
        ({"urls": "presets", "port": "x"}, "urls='presets' needs presets"),
        ({"url_keys": [KEY, KEY]}, "two keys have one id"),
        ({"url_keys": ["k1:short"]}, "at least 24 characters"),
        ({"presets": {"huge": "9000x"}}, "presets: huge: width=9000 is over the limit of 8192"),
        ({"presets": {"huge": "900x"}, "max_side": 800}, "presets: huge: width=900"),
        ({"urls": "signed", "presets": {"huge": "9000x"}}, "presets: huge"),
    ],
)
def test_what_could_not_be_asked_for_is_a_fault(given: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(given, {})
    assert words in str(caught.value)


def test_presets_in_the_environment_are_json() -> None:
    with pytest.raises(SettingsError, match="LAZYPIX_PRESETS is not JSON; accepted: an object"):
        load({}, {"LAZYPIX_PRESETS": "thumb=200x200"})


@pytest.mark.parametrize("keys", [[""], ["short"], [" " * 20], ["long-enough-to-be-a-key", "short"]])
def test_a_key_that_could_be_guessed_is_refused(keys: list[str]) -> None:
    with pytest.raises(SettingsError, match="at least 16 characters"):
        load({"api_keys": keys}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert load({"host": host}, {}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.test"])
def test_any_other_address_needs_keys_and_a_choice_of_urls(host: str) -> None:
    with pytest.raises(SettingsError, match="needs api_keys and urls"):
        load({"host": host}, {})
    with pytest.raises(SettingsError, match="needs urls"):
        load({"host": host, "api_keys": ["k" * 16]}, {})
    assert load({"host": host, "api_keys": ["k" * 16], "urls": "open"}, {}).host == host


def test_every_setting_is_described_and_has_a_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIA:TOPSECRET@bucket/p?region=x",
        "s3://bucket/p?sig=TOPSECRET&region=x",
        "az://c/p?account=a&sas=TOPSECRET",
    ],
)
def test_what_is_shown_of_an_address_holds_no_secret(address: str) -> None:
    told = str(shown(load({"store": address, "replica": address}, {})))
    assert "TOPSECRET" not in told
    assert address[:2] in told


def test_celery_needs_a_broker_of_a_kind_that_is_tried() -> None:
    with pytest.raises(SettingsError, match='jobs="celery" needs broker'):
        load({"jobs": "celery"}, {})
    with pytest.raises(SettingsError, match="must begin with one of redis://"):
        load({"jobs": "celery", "broker": "sqs://user:hush@host"}, {})
    settings = load({"jobs": "celery", "broker": "amqp://user:hush@host//"}, {})
    assert "hush" not in repr(settings) + str(shown(settings))


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_no_number_is_endless(value: str) -> None:
    floats = [name for name, field in Settings.model_fields.items() if field.annotation is float]
    with pytest.raises(SettingsError) as refused:
        load(dict.fromkeys(floats, value), {})
    assert [name for name in floats if f"{name}='{value}'" not in str(refused.value)] == []
