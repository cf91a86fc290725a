"""What is known of an image, as it is written into an archive and read from one: with suspicion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

from lazypix.catalog import DELETED, Image, State, StoredVariant
from lazypix.errors import BadArchive, LazypixError
from lazypix.filenames import base_name
from lazypix.formats import READABLE, WRITABLE
from lazypix.keys import check_ident
from lazypix.originals.uploading import as_json
from lazypix.plan import Probe
from lazypix.thumbhash import average
from lazypix.transform import Transform

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST = 2**31 - 1
_LONGEST_HASH = 64
_MOST_BYTES = 2**62


def write_facts(image: Image, state: State, variants: Iterable[StoredVariant] = ()) -> bytes:
    """Return the content of `image.json`."""
    probe = image.probe
    facts = {
        "ident": image.ident,
        "state": "deleted" if state in DELETED else state,
        "sha256": image.sha256,
        "size": image.size,
        "created": image.created.isoformat(),
        "filename": None if state in DELETED else image.filename,
        "metadata": {} if state in DELETED else dict(image.metadata),
        "strikes": image.strikes,
        "probe": {
            "format": probe.format,
            "width": probe.width,
            "height": probe.height,
            "frames": probe.frames,
            "orientation": probe.orientation,
            "alpha": probe.alpha,
            "thumbhash": probe.thumbhash,
        },
        "variants": [
            {
                "stem": variant.stem,
                "format": variant.format,
                "size": variant.size,
                "created": variant.created.isoformat(),
                "sha256": variant.sha256,
                "used": (variant.used or variant.created).isoformat(),
            }
            for variant in variants
        ],
    }
    return json.dumps(facts, indent=1).encode()


def read_facts(name: str, data: bytes) -> tuple[Image, State, list[StoredVariant]]:
    """Read the content of the member `name`.

    Raises:
        BadArchive: it is not what `write_facts` writes.
    """
    facts = _Facts(name, read_object(name, data))
    state = facts.one_of("state", ("ready", "trashed", "deleted"))
    probe = facts.inner("probe")
    image = Image(
        ident=facts.text("ident"),
        sha256=facts.sha256(),
        size=facts.number("size", 0, _MOST_BYTES),
        created=facts.moment("created"),
        filename=base_name(facts.text("filename")) if facts.values.get("filename") is not None else None,
        metadata=facts.metadata(),
        strikes=facts.number("strikes", 0, _MOST),
        probe=Probe(
            format=probe.one_of("format", READABLE),
            width=probe.number("width", 1, _MOST),
            height=probe.number("height", 1, _MOST),
            frames=probe.number("frames", 1, _MOST),
            orientation=probe.number("orientation", 1, 8),
            alpha=probe.values.get("alpha") is True,
            thumbhash=probe.thumbhash(),
        ),
    )
    if name != f"{_known(name, image.ident)}/image.json":
        raise BadArchive(f"{name} is of another image, {image.ident!r}")
    return image, cast(State, "gone" if state == "deleted" else state), facts.variants()


def read_object(name: str, data: bytes) -> dict[str, Any]:
    """Read a JSON object from the member `name`.

    Raises:
        BadArchive: it is none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadArchive(f"{name} is not a JSON object")
    return value


def _known(name: str, ident: str) -> str:
    try:
        return check_ident(ident)
    except LazypixError as error:
        raise BadArchive(f"{name}: {error}") from None


class _Facts:
    """Values of one JSON object, each checked when it is asked for."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        self.values = values

    def text(self, key: str) -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else self._refuse(key, "a text")

    def number(self, key: str, least: int, most: int) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self._refuse(key, f"a number from {least} to {most}")
        return int(value)

    def one_of(self, key: str, accepted: tuple[str, ...]) -> str:
        value = self.text(key)
        return value if value in accepted else self._refuse(key, ", ".join(accepted))

    def moment(self, key: str) -> datetime:
        try:
            found = datetime.fromisoformat(self.text(key)).astimezone(UTC)
        except (ValueError, OverflowError):
            found = datetime.min.replace(tzinfo=UTC)
        return found if found.year >= 1970 else self._refuse(key, "a moment since 1970")

    def sha256(self) -> str:
        value = self.text("sha256")
        return value if _SHA256.fullmatch(value) else self._refuse("sha256", "64 hex digits")

    def thumbhash(self) -> str | None:
        if self.values.get("thumbhash") is None:  # of an image, or in an archive, from before there were any
            return None
        value = self.text("thumbhash")
        try:
            average(value)
        except ValueError:
            self._refuse("thumbhash", "a ThumbHash in base64")
        return value if len(value) <= _LONGEST_HASH else self._refuse("thumbhash", "a ThumbHash in base64")

    def metadata(self) -> Mapping[str, Any]:
        try:
            return as_json(self.values.get("metadata", {}))
        except LazypixError as error:
            raise BadArchive(f"{self._name}: {error}") from None

    def inner(self, key: str) -> _Facts:
        value = self.values.get(key)
        return _Facts(self._name, value if isinstance(value, dict) else self._refuse(key, "an object"))

    def variants(self) -> list[StoredVariant]:
        values = self.values.get("variants", [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self._refuse("variants", "a list of objects")
        return [_Facts(self._name, value).variant() for value in values]

    def variant(self) -> StoredVariant:
        stem = self.text("stem")
        try:
            canonical = Transform.parse(stem).stem == stem
        except LazypixError:
            canonical = False
        return StoredVariant(
            stem=stem if canonical else self._refuse("stem", "the canonical text of a transform"),
            format=self.one_of("format", WRITABLE),
            size=self.number("size", 0, _MOST_BYTES),
            created=self.moment("created"),
            sha256=None if self.values.get("sha256") is None else self.sha256(),
            used=self.moment("used"),
        )

    def _refuse(self, key: str, accepted: str) -> NoReturn:
        shown = repr(self.values.get(key))
        shown = shown if len(shown) <= 64 else shown[:64] + "…"
        raise BadArchive(f"{self._name}: {key}={shown} is not accepted; accepted: {accepted}")
