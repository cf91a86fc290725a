"""Under which keys a replica keeps originals and variants: the library's own, or templates. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lazypix.catalog.values import StoredVariant
from lazypix.dialects.imageserver import QUALITY, size_text
from lazypix.errors import BadTransform
from lazypix.formats import READABLE, by_name
from lazypix.keys import SIDECAR, KeyScheme
from lazypix.stores import check_key
from lazypix.transform import Transform

What = Literal["originals", "named", "all"]
"""What a replica receives: originals; sizes that were named in forms, too; every variant, too."""


class Layout(Protocol):
    """The keys of a replica."""

    def original(self, ident: str, extension: str) -> str:
        """Return the key of an original."""
        ...

    def variant(self, ident: str, variant: StoredVariant) -> str | None:
        """Return the key of a variant; None: the layout has no words for it, and it is not replicated."""
        ...

    def folder(self, ident: str) -> str | None:
        """Return the prefix under which all blobs of an image lie, and nothing else; None: there is none."""
        ...

    def ident_of(self, key: str) -> str | None:
        """Return whose blob this is, or None for a key that this layout does not give."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKeys:
    """The library's own keys."""

    scheme: KeyScheme = field(default_factory=KeyScheme)

    def original(self, ident: str, extension: str) -> str:
        return self.scheme.original(ident, extension)

    def variant(self, ident: str, variant: StoredVariant) -> str | None:
        return self.scheme.folder(ident) + variant.name

    def folder(self, ident: str) -> str | None:
        return self.scheme.folder(ident)

    def ident_of(self, key: str) -> str | None:
        place = self.scheme.parse(key)
        return place.ident if place is not None and place.name != SIDECAR else None


@dataclass(frozen=True, slots=True)
class _Placeholder:
    letters: str
    """What its value consists of, for a regular expression."""
    of_originals: bool


_PLACEHOLDERS = {
    "ident": _Placeholder("A-Za-z0-9_-", True),
    "ext": _Placeholder("a-z0-9", True),
    "width": _Placeholder("0-9", False),
    "height": _Placeholder("0-9_", False),
    "stem": _Placeholder(r"^/\0", False),
}
_PART = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """Keys made of templates such as `image/{width}/{ident}.jpg`.

    `{ident}`, and of a variant `{width}` and `{height}` as ImageServer says them (`60`, `0`; `<60` becomes `_60`), or
    `{stem}`, its canonical text; `{ext}`, the format's extension. With `{width}` or `{height}` only those variants
    have a key that ImageServer's addresses can say: JPEG of quality 90. Without `{height}`, several sizes may share a
    key: see `shared_out`.
    """

    original_template: str
    variant_template: str

    def __post_init__(self) -> None:
        _check("original", self.original_template, of_originals=True)
        names = _check("variant", self.variant_template, of_originals=False)
        if not names & {"width", "stem"}:
            raise ValueError(_refusal("variant", self.variant_template, "it does not tell sizes apart"))
        if "stem" in names and "ext" not in names:
            raise ValueError(_refusal("variant", self.variant_template, "{stem} goes with {ext}"))
        if _may_be_the_same(self.original_template, self.variant_template):
            raise ValueError(
                _refusal("variant", self.variant_template, f"its keys may be those of {self.original_template!r}")
            )

    def original(self, ident: str, extension: str) -> str:
        return self.original_template.format(ident=ident, ext=extension)

    def variant(self, ident: str, variant: StoredVariant) -> str | None:
        values = {"ident": ident, "stem": variant.stem, "ext": by_name(variant.format).extension}
        if "{width}" in self.variant_template or "{height}" in self.variant_template:
            said = _imageserver_size(variant)
            if said is None:
                return None
            values |= {"width": said[0], "height": said[1].replace("<", "_")}
        return self.variant_template.format(**values)

    def folder(self, ident: str) -> str | None:  # noqa: ARG002
        return None

    def ident_of(self, key: str) -> str | None:
        for template in (self.original_template, self.variant_template):
            found = _matcher(template).fullmatch(key)
            if found is not None:
                return found["ident"]
        return None


def shared_out(layout: Layout, ident: str, variants: Iterable[StoredVariant]) -> Mapping[str, StoredVariant]:
    """Return which variant lies under which key.

    Of several that share one it is the one without a height (`100x0`), else the first in the order of their canonical
    texts: the same whoever looks, in whatever order they were made.
    """
    found: dict[str, StoredVariant] = {}
    for variant in sorted(variants, key=_precedence):
        key = layout.variant(ident, variant)
        if key is not None:
            found.setdefault(key, variant)
    return found


def keys_of(layout: Layout, ident: str, variants: Sequence[StoredVariant]) -> set[str]:
    """Return all keys that an image with these variants may have."""
    originals = {layout.original(ident, by_name(name).extension) for name in READABLE}
    return originals | {key for variant in variants if (key := layout.variant(ident, variant)) is not None}


def _precedence(variant: StoredVariant) -> tuple[bool, str, str]:
    said = _imageserver_size(variant)
    return said is None or said[1] != "0", variant.stem, variant.format


def _imageserver_size(variant: StoredVariant) -> tuple[str, str] | None:
    """Return width and height of a variant as ImageServer's forms say them, or None when they cannot."""
    if variant.format != "jpg":
        return None
    transform = Transform.parse(variant.stem)
    try:
        width, height = size_text(transform)
    except BadTransform:
        return None
    return (width, height) if width is not None and transform.quality == QUALITY else None


# --- templates --------------------------------------------------------------------------------------------------


def _check(what: str, template: str, *, of_originals: bool) -> set[str]:
    """Refuse a template whose keys would collide, or not be keys; return the placeholders in it."""
    names = _PART.findall(template)
    accepted = {name for name, place in _PLACEHOLDERS.items() if place.of_originals or not of_originals}
    for name in names:
        if name not in accepted:
            listed = ", ".join(f"{{{each}}}" for each in sorted(accepted))
            raise ValueError(f"{what}: unknown placeholder {{{name[:20]}}} in {template!r}; accepted: {listed}")
    if names.count("ident") != 1 or len(set(names)) != len(names):
        raise ValueError(_refusal(what, template, "{ident} must be in it, and nothing twice"))
    try:
        check_key(_PART.sub("1", template))
    except ValueError:
        raise ValueError(_refusal(what, template, "it makes no well-formed keys")) from None
    if "{" in _PART.sub("", template) or "}" in _PART.sub("", template):
        raise ValueError(_refusal(what, template, "a brace is left over"))
    if any(not _is_told_apart(left, between) for left, between in _neighbours(template)):
        raise ValueError(_refusal(what, template, "two placeholders must be kept apart by another character"))
    return set(names)


def _refusal(what: str, template: str, why: str) -> str:
    return f"{what}={template!r} is not accepted: {why}; accepted: such as image/{{width}}/{{ident}}.jpg"


def _neighbours(template: str) -> Iterable[tuple[str, str]]:
    """Yield each placeholder that another one follows, and the text between them."""
    parts = _PART.split(template)  # text, name, text, name, …, text
    for index in range(1, len(parts) - 2, 2):
        yield parts[index], parts[index + 1]


def _is_told_apart(name: str, between: str) -> bool:
    """Tell whether it can be seen where a placeholder's value ends."""
    if name == "stem":
        return between == "." or between.startswith("/")  # followed by {ext}, which has no dot
    return between != "" and re.match(f"[{_PLACEHOLDERS[name].letters}]", between) is None


def _matcher(template: str) -> re.Pattern[str]:
    parts = _PART.split(template)
    made = [
        f"(?P<{part}>[{_PLACEHOLDERS[part].letters}]+)" if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    ]
    return re.compile("".join(made))


def _may_be_the_same(one: str, other: str) -> bool:
    """Tell, if in doubt with yes, whether two templates can give the same key: look at them folder by folder."""
    folders, others = one.split("/"), other.split("/")
    if len(folders) != len(others):
        return False
    fixed: Callable[[str], bool] = lambda folder: "{" not in folder  # noqa: E731
    return all(not (fixed(a) and fixed(b)) or a == b for a, b in zip(folders, others, strict=True))


IMAGESERVER = Templates(original_template="image/{ident}.jpg", variant_template="image/{width}/{ident}.jpg")
"""Where ImageServer put things in its cloud; an original is named `.jpg` whatever its format."""
