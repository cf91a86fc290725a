"""HTML for images, out of what an application keeps of them: no store or catalog is asked. Pure.

`Tags` writes addresses, `srcset`, `<img>` and `<picture>`. Width and height are those of the variant to the pixel, so
that a page keeps its layout while it loads.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from typing import Literal

from lazypix.addresses import Addresses
from lazypix.errors import BadRequest
from lazypix.formats import WRITABLE, by_name
from lazypix.plan import Limits, Plan, Probe, make_plan
from lazypix.references import ImageReference
from lazypix.thumbhash import average, decode, has_alpha, png
from lazypix.transform import MAX_DPR, Transform

Placeholder = Literal["colour", "preview"]
Attribute = str | int | bool | None

DENSITIES = (1.0, 2.0)
"""Device pixel ratios that `srcset` has variants for, where nothing else is said."""
PICTURE_FORMATS = ("avif", "webp")
"""The formats of a `<picture>`'s sources, best first; its `<img>` is JPEG, or PNG or GIF if it has to be."""

# Sizes are computed here, and refused by the server.
_ANY = Limits(max_pixels=10**12, max_side=10**6)
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_:.-]*", re.ASCII)
_OURS = frozenset({"src", "srcset", "width", "height"})


class Html(str):
    """HTML that is escaped already; templates put it in as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the text for templates that escape. Source: MarkupSafe, HTML Representations."""
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Writes HTML for images; `addresses` says where they are.

    A transform's text or value, or a preset's name, says what the image looks like at 1x. With `fit=cover` and no
    gravity of its own, the focus that is noted in the reference is kept in sight. Where only presets are given out,
    and there are no keys to sign other links with, there are other sizes or a focus only as far as they are presets.
    """

    addresses: Addresses
    expires_s: float | None = None
    """For so many seconds links are good, at least; None: for ever."""

    def src(self, image: ImageReference, transform: Transform | str = "full", *, format: str | None = None) -> str:
        """Return the address of a variant, not escaped; without a format the client's `Accept` header decides.

        Raises:
            BadTransform: malformed, or impossible for this image.
        """
        wanted = self._wanted(image, transform)
        return self.addresses.url(image.ident, wanted, format=format, expires_s=self.expires_s)

    def srcset(
        self,
        image: ImageReference,
        transform: Transform | str = "full",
        *,
        widths: Sequence[int] = (),
        densities: Sequence[float] = DENSITIES,
        format: str | None = None,
    ) -> str:
        """Return candidates for browsers to choose from, not escaped: by `widths` in pixels, or by `densities`.

        None is larger than the original has pixels for; where that leaves widths out, its own width stands instead.

        Raises:
            BadTransform: malformed, or impossible for this image.
        """
        wanted = self._wanted(image, transform)
        if widths:
            found = [(variant, f"{size_of(image, variant)[0]}w") for variant in _by_width(image, wanted, widths)]
        else:
            found = [(variant, f"{ratio:g}x") for ratio, variant in _by_density(image, wanted, densities)]
        given_out = [(variant, what) for variant, what in found if self._is_given_out(variant, format)]
        return ", ".join(f"{self.src(image, variant, format=format)} {what}" for variant, what in given_out)

    def img(
        self,
        image: ImageReference,
        transform: Transform | str = "full",
        *,
        alt: str,
        widths: Sequence[int] = (),
        format: str | None = None,
        placeholder: Placeholder | None = "colour",
        **attributes: Attribute,
    ) -> Html:
        """Return an `<img>`; `alt` is what is read aloud, and empty for decoration.

        `attributes` are more of HTML's, such as `sizes` (wanted with `widths`), `class_`, `fetchpriority`. Loading is
        lazy unless `loading` says otherwise, or `fetchpriority` is `high`.

        Raises:
            BadTransform: malformed, or impossible for this image.
            BadRequest: an attribute is none, or one that is written here.
        """
        wanted = self._wanted(image, transform)
        width, height = size_of(image, wanted)
        srcset = self.srcset(image, wanted, widths=widths, format=format)
        own: dict[str, Attribute] = {
            "src": self.src(image, wanted, format=format),
            "srcset": srcset if ", " in srcset or (widths and srcset) else None,
            "width": width,
            "height": height,
            "alt": alt or "",  # a template's variable may be None; without the attribute the address is read aloud
            "loading": None if attributes.get("fetchpriority") == "high" else "lazy",
            "decoding": "async",
        }
        given = _named(attributes)
        style = [text for text in (placeholder_style(image, placeholder), given.pop("style", None)) if text]
        return _element("img", {**own, **given, "style": ";".join(map(str, style)) or None})

    def picture(
        self,
        image: ImageReference,
        transform: Transform | str = "full",
        *,
        alt: str,
        widths: Sequence[int] = (),
        formats: Sequence[str] = PICTURE_FORMATS,
        placeholder: Placeholder | None = "colour",
        **attributes: Attribute,
    ) -> Html:
        """Return a `<picture>` with a source for each of `formats`, and an `<img>` for all others; see `img`.

        For pages behind caches that do not tell `Accept` headers apart: each address has one format.

        Raises:
            BadTransform, BadRequest: as `img`.
        """
        unknown = [name for name in formats if name not in WRITABLE]
        if unknown:
            raise BadRequest(f"format={unknown[0]!r} is not accepted; accepted: {', '.join(WRITABLE)}")
        wanted = self._wanted(image, transform)
        last = _last_format(image)
        sources = [
            _element("source", {"type": by_name(name).mime, "srcset": srcset, "sizes": attributes.get("sizes")})
            for name in formats
            if name != last and (by_name(name).animates or not by_name(image.format).animates)
            if (srcset := self.srcset(image, wanted, widths=widths, format=name))
        ]
        img = self.img(image, wanted, alt=alt, widths=widths, format=last, placeholder=placeholder, **attributes)
        return Html(f"<picture>{''.join(sources)}{img}</picture>")

    def _wanted(self, image: ImageReference, transform: Transform | str) -> Transform:
        presets = self.addresses.gate.presets
        wanted = presets.transform(transform) if isinstance(transform, str) else transform
        kept = focused(image, wanted)
        return kept if self._is_given_out(kept) else wanted

    def _is_given_out(self, transform: Transform, format: str | None = None) -> bool:
        gate = self.addresses.gate
        if gate.ring.keys or gate.mode == "open":
            return True
        return not gate.needs_signature(transform if format is None else transform.with_format(format))


def focused(image: ImageReference, transform: Transform) -> Transform:
    """Return the transform that keeps the image's focus in sight when it crops, unless it says what to keep."""
    if image.focus is None or transform.fit != "cover" or transform.gravity != "center":
        return transform
    return replace(transform, gravity=image.focus)


def size_of(image: ImageReference, transform: Transform) -> tuple[int, int]:
    """Return width and height of a variant, in pixels.

    Raises:
        BadTransform: impossible for this image.
    """
    return _plan(image, transform).size


def placeholder_style(image: ImageReference, kind: Placeholder | None) -> str | None:
    """Return the CSS that stands in for the image while it loads: its mean colour, or a blurred preview.

    None when nothing is known, or when it would shine through. The preview is some 3 kB, of which a page should not
    have many.
    """
    if image.thumbhash is None or kind is None or _is_transparent(image):
        return None
    try:
        if kind == "colour":
            return f"background:#{average(image.thumbhash)}"
        return f"background:url({preview_url(image.thumbhash)}) 0 0/100% 100%"
    except ValueError:  # no reason to be without the page
        return None


@lru_cache(maxsize=256)
def preview_url(thumbhash: str) -> str:
    """Return a preview as a `data:` URL, a PNG of 32 pixels on its longer side.

    Raises:
        ValueError: it is no ThumbHash.
    """
    return "data:image/png;base64," + base64.b64encode(png(decode(thumbhash))).decode("ascii")


def _plan(image: ImageReference, transform: Transform) -> Plan:
    # Sizes are the same in all formats; PNG has room for the largest.
    probe = Probe(format=image.format, width=image.width, height=image.height)
    return make_plan(transform.as_format("png"), probe, _ANY)


def _is_enlarged(image: ImageReference, transform: Transform) -> bool:
    plan = _plan(image, transform)
    wide, high = plan.turn.size(plan.source_width, plan.source_height)
    across, down = plan.turn.size(plan.width, plan.height)
    return across > wide or down > high


def _by_density(
    image: ImageReference, transform: Transform, densities: Sequence[float]
) -> list[tuple[float, Transform]]:
    """Return the variants for device pixel ratios; the plain one is always among them."""
    found = [(1.0, transform)]
    if transform.width is None and transform.height is None:
        return found
    before = size_of(image, transform)
    for ratio in sorted(set(densities) - {1.0}):
        if not 1 < transform.dpr * ratio <= MAX_DPR:
            continue
        variant = replace(transform, dpr=transform.dpr * ratio)
        size = size_of(image, variant)
        if size == before or _is_enlarged(image, variant):
            break
        found.append((ratio, variant))
        before = size
    return found


def _by_width(image: ImageReference, transform: Transform, widths: Sequence[int]) -> list[Transform]:
    """Return variants of these widths, in the proportions of the transform's box; each size once."""
    found: dict[tuple[int, int], Transform] = {}
    most = _most_width(image, transform)
    for width in sorted({min(width, most) for width in widths}):
        variant = _resized(transform, width)
        found.setdefault(size_of(image, variant), variant)
    return list(found.values())


def _resized(transform: Transform, width: int) -> Transform:
    if transform.width is None and transform.height is not None:
        raise BadRequest(f"widths need a transform with a width, or none at all; {transform.stem} has a height only")
    height = None
    if transform.width is not None and transform.height is not None:
        height = max(1, round(transform.height * width / transform.width))
    return replace(transform, width=width, height=height, dpr=1)


def _most_width(image: ImageReference, transform: Transform) -> int:
    """Return the width up to which the original has pixels for a variant."""
    plain = _plan(image, replace(transform, width=None, height=None, dpr=1, fit="inside", gravity="center"))
    width, height = plain.size
    if transform.width is None or transform.height is None or transform.fit in ("inside", "top"):
        return width
    by_height = height * transform.width // transform.height
    return max(1, min(width, by_height) if transform.fit in ("cover", "fill", "outside") else width)


def _last_format(image: ImageReference) -> str:
    """Return the format that every browser shows this image in, as it is."""
    if image.format in ("png", "gif"):
        return image.format
    return "png" if _is_transparent(image) else "jpg"


def _is_transparent(image: ImageReference) -> bool:
    """Tell whether transparency is known of."""
    try:
        return image.thumbhash is not None and has_alpha(image.thumbhash)
    except ValueError:
        return False


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Return attributes by the names that HTML has for them: `class_` is `class`, `data_id` is `data-id`."""
    found = {}
    for name, value in attributes.items():
        written = name.rstrip("_").replace("_", "-").lower()
        if not _ATTRIBUTE.fullmatch(written):
            raise BadRequest(f"{name[:64]!r} is no attribute's name; accepted: letters, digits, _ and -")
        if written in _OURS:
            raise BadRequest(f"The attribute {written} follows from the transform; accepted: all but {sorted(_OURS)}")
        found[written] = value
    return found


def _element(name: str, attributes: dict[str, Attribute]) -> Html:
    """Write an element without content; an attribute that is None or False is left out, True has no value."""
    written = [
        f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"'
        for attribute, value in attributes.items()
        if value is not None and value is not False
    ]
    return Html(f"<{name}{''.join(written)}>")
