"""Presets: transforms that have a name, and may be asked for by it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lazypix.errors import BadTransform
from lazypix.transform import Transform

MARK = "@"
"""What a preset's name begins with where a transform's text may stand: `@thumb`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_NAME_RULE = "1 to 32 of the characters a-z 0-9 _ -"


@dataclass(frozen=True, slots=True)
class Presets:
    """Transforms by name. One without a format may be had in every format."""

    by_name: Mapping[str, Transform] = field(default_factory=dict)

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> Presets:
        """Read the texts of transforms.

        Raises:
            BadTransform: some name or text is wrong; the message lists every fault.
        """
        read, faults = {}, []
        for name, text in texts.items():
            if not _NAME.fullmatch(name):
                faults.append(f"{name[:64]!r} is no name of a preset; accepted: {_NAME_RULE}")
            try:
                read[name] = Transform.parse(text)
            except BadTransform as error:
                faults.append(f"{name[:64]}: {error}")
        if faults:
            raise BadTransform("; ".join(faults))
        return cls(read)

    def transform(self, text: str) -> Transform:
        """Read `@<name>`, or the text of a transform.

        Raises:
            BadTransform: there is no such preset, or the text is malformed.
        """
        if not text.startswith(MARK):
            return Transform.parse(text)
        found = self.by_name.get(text.removeprefix(MARK))
        if found is None:
            raise BadTransform(f"Unknown preset {text[:64]!r}; accepted: {self.names}")
        return found

    def allow(self, transform: Transform) -> bool:
        """Tell whether this is one of the presets, in a format that it may be had in."""
        stem = transform.stem
        return any(
            preset.stem == stem and preset.format in (None, transform.format) for preset in self.by_name.values()
        )

    @property
    def names(self) -> str:
        """The names, for messages."""
        return ", ".join(f"{MARK}{name}" for name in self.by_name) or "none, there are no presets"
