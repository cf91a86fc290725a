"""How the clients of S3, Google Cloud Storage and Azure are set up from an address' options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lazypix.errors import SettingsError
from lazypix.stores.objects import CACHE_CONTROL, TRIES, ObjectStore


def connect(
    kind: str, bucket: str, prefix: str, options: Mapping[str, str], secrets: Mapping[str, str]
) -> ObjectStore:
    """Make the store of an address such as `s3://bucket/prefix?endpoint=…`; see `stores.addresses`.

    Raises:
        SettingsError: an option is unknown or malformed, or obstore is not installed.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        raise SettingsError("Object storage needs another package: pip install 'lazypix[objects]'") from None
    own, native = _split_options(kind, options)
    endpoint = native.get("endpoint", "")
    timeout = timedelta(seconds=own.timeout)
    client_options: dict[str, Any] = {
        "timeout": timeout, "connect_timeout": min(timeout, timedelta(seconds=5)),
        "allow_http": endpoint.startswith("http://"),
    }  # fmt: skip
    maker: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[kind]
    if kind == "s3":
        native.setdefault("checksum_algorithm", "SHA256")

    def make(retries: int) -> Any:
        backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}
        retry = {"max_retries": retries, "retry_timeout": 2 * timeout, "backoff": backoff}
        return maker(
            bucket, prefix=prefix or None, client_options=client_options, retry_config=retry, **native, **secrets
        )

    try:
        return ObjectStore(
            make, name=f"{kind}://{bucket}/{prefix}", public_url=own.public_url, cache_control=own.cache_control,
            retries=own.retries,
        )  # fmt: skip
    except (BaseError, ValueError, TypeError) as error:
        raise SettingsError(f"store={kind}://{bucket} cannot be set up ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """Options of an address that are ours, not the service's."""

    timeout: float = 30.0
    retries: int = TRIES
    public_url: str = ""
    cache_control: str = CACHE_CONTROL


_NATIVE: dict[str, dict[str, str]] = {
    "s3": {
        "endpoint": "endpoint", "region": "region", "virtual_hosted": "virtual_hosted_style_request",
        "checksum": "checksum_algorithm", "unsigned_payload": "unsigned_payload", "anonymous": "skip_signature",
    },
    "gs": {"endpoint": "base_url", "anonymous": "skip_signature"},
    "az": {"endpoint": "endpoint", "account": "account_name", "emulator": "use_emulator"},
}  # fmt: skip
_YES_NO = {"true": True, "false": False}


def _split_options(kind: str, options: Mapping[str, str]) -> tuple[_Own, dict[str, Any]]:
    own: dict[str, Any] = {}
    native: dict[str, Any] = {}
    for name, text in options.items():
        try:
            if name in ("public_url", "cache_control"):
                own[name] = text
            elif name == "timeout":
                own[name] = float(text)
            elif name == "retries":
                own[name] = int(text)
            else:
                native[_NATIVE[kind][name]] = _YES_NO.get(text, text)
        except KeyError:
            accepted = ", ".join(sorted((*_NATIVE[kind], "public_url", "cache_control", "timeout", "retries")))
            raise SettingsError(
                f"store: unknown option {name[:40]!r}; accepted with {kind}:// are {accepted}"
            ) from None
        except ValueError:
            raise SettingsError(f"store: {name}={text[:40]!r} is not a number") from None
    if native.get("checksum_algorithm") == "none":
        del native["checksum_algorithm"]
    return _Own(**own), native
