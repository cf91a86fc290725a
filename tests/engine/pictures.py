"""Test pictures, drawn by code: small, asymmetric, in every format and colour space that is promised."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image, ImageCms, ImageDraw
from skimage.metrics import structural_similarity

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 30), (30, 30, 220), (230, 220, 30)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
CORNERS = (RED, GREEN, BLUE, YELLOW)
"""Of `quadrants`: top left, top right, bottom left, bottom right."""

# How an upright picture is stored under each EXIF orientation.
_STORED: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATIONS = tuple(_STORED)


def quadrants(width: int = 120, height: int = 80) -> Image.Image:
    """Draw a picture whose four quarters have four colours."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for index, colour in enumerate(CORNERS):
        left, top = (index % 2) * (width // 2), (index // 2) * (height // 2)
        draw.rectangle((left, top, left + width, top + height), fill=colour)
    return picture


def bands(width: int, height: int, count: int = 16) -> Image.Image:
    """Draw rows (of a tall picture) or columns of `count` shades of red, brighter from the top left on."""
    steps = np.arange(max(width, height)) * count // max(width, height) * (255 // (count - 1))
    red = np.tile(steps, (width, 1)).T if height >= width else np.tile(steps, (height, 1))
    return Image.fromarray(np.dstack([red, np.zeros_like(red), np.zeros_like(red)]).astype(np.uint8), "RGB")


def noise(width: int, height: int) -> Image.Image:
    """Draw a picture that does not compress, the same at every call."""
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def photograph(width: int, height: int, grain: float = 0) -> Image.Image:
    """Return a photograph of this size, with as much grain as is said (a standard deviation, of 255)."""
    coffee = Image.fromarray(skimage.data.coffee())
    pixels = np.asarray(coffee.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    noisy = pixels + np.random.default_rng(2).normal(0, grain, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def encoded(picture: Image.Image, name: str = "png", **options: Any) -> bytes:
    """Encode with Pillow, by the name lazypix gives the format."""
    buffer = io.BytesIO()
    pillow = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF", "tiff": "TIFF"}[name]
    picture.save(buffer, pillow, **options)
    return buffer.getvalue()


def jpg(picture: Image.Image, **options: Any) -> bytes:
    """Encode as a JPEG with hardly any loss."""
    return encoded(picture, "jpg", **{"quality": 95, "subsampling": 0, **options})


def oriented(picture: Image.Image, orientation: int, name: str = "jpg") -> bytes:
    """Store an upright picture under an EXIF orientation, as a camera held that way does."""
    step = _STORED[orientation]
    stored = picture if step is None else picture.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if name == "tiff":
        return encoded(stored, name, tiffinfo={0x0112: orientation})
    return jpg(stored, exif=exif) if name == "jpg" else encoded(stored, name, exif=exif, lossless=True)


def with_metadata(picture: Image.Image, name: str) -> bytes:
    """Encode with EXIF (camera, GPS position) and XMP, all of which hold the word `SECRET`."""
    exif = Image.Exif()
    exif[0x010F] = "SECRET camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 7.0), 29: "SECRET"})
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>SECRET</x:xmpmeta>"
    if name == "png":
        return encoded(picture, name, exif=exif)
    return encoded(picture, name, exif=exif, xmp=xmp)


def see_through(width: int = 60, height: int = 40, hidden: Colour = GREEN) -> Image.Image:
    """Draw an opaque red left half beside a right half that is transparent over a hidden colour."""
    picture = Image.new("RGBA", (width, height), (*hidden, 0))
    picture.paste((*RED, 255), (0, 0, width // 2, height))
    return picture


def film(
    colours: Sequence[Colour],
    name: str = "gif",
    size: tuple[int, int] = (60, 40),
    delays_ms: Sequence[int] | None = None,
    loop: int = 0,
) -> bytes:
    """Encode an animation of one frame a colour, each with a white upper left quarter."""
    frames = []
    for colour in colours:
        frame = Image.new("RGB", size, colour)
        frame.paste(WHITE, (0, 0, size[0] // 2, size[1] // 2))
        frames.append(frame)
    duration = list(delays_ms or [100] * len(colours))
    more = {"lossless": True} if name == "webp" else {"optimize": False}
    return encoded(
        frames[0], name, save_all=True, append_images=frames[1:], duration=duration, loop=loop, disposal=2, **more
    ) if name == "gif" else encoded(
        frames[0], name, save_all=True, append_images=frames[1:], duration=duration, loop=loop, **more
    )  # fmt: skip


def cmyk_jpg(colour: tuple[int, int, int, int] = (0, 255, 255, 0)) -> bytes:
    """Encode a CMYK JPEG of one colour (percentages on a scale of 255; default: red)."""
    return jpg(Image.new("CMYK", (60, 40), colour))


def png16(values: npt.NDArray[np.uint16]) -> bytes:
    """Encode a 16 bit PNG by hand: `values` has shape (height, width, 1..4)."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return _png(width, height, 16, colour_type, zlib.compress(rows))


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a PNG of a few bytes whose header claims to be huge."""
    return _png(width, height, 8, 2, zlib.compress(b"\0" * 100_000))


def _png(width: int, height: int, depth: int, colour_type: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def wide_gamut_profile() -> bytes:
    """Return a matrix profile of Display P3: its primaries, D65 adapted to D50, and the curve of sRGB.

    Built from Pillow's own sRGB profile with the colorants replaced. Source: SMPTE EG 432-1, ICC.1:2022, 9.2.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    colorants = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for index in range(int.from_bytes(profile[128:132], "big")):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if name in colorants:
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in colorants[name]))
    # Under another name: a profile that says it is sRGB is believed.
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "P3  ".encode("utf-16-be")).replace(b"sRGB", b"P3  ")


def p3_to_srgb(colour: Colour) -> Colour:
    """Convert by arithmetic: decode the curve, go through linear light, clip, encode. Source: CSS Color 4, 17."""
    linear = _linear(np.array(colour) / 255)
    matrix = np.array([
        [1.2249401762, -0.2249404646, 0.0],
        [-0.0420569547, 1.0420571018, 0.0],
        [-0.0196375546, -0.0786360456, 1.0982736001],
    ])  # fmt: skip
    mixed = np.clip(matrix @ linear, 0, 1)
    red, green, blue = (round(float(v) * 255) for v in _curved(mixed))
    return red, green, blue


def _linear(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _curved(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


# --- looking at results ----------------------------------------------------------------------------------------


def similarity(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the structural similarity (SSIM) of two RGB arrays; 1 is the same."""
    return float(structural_similarity(one, other, channel_axis=2))


def opened(data: bytes) -> Image.Image:
    """Decode with Pillow, completely."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def frames_of(data: bytes) -> list[Pixels]:
    """Decode all frames, composed, as RGBA arrays."""
    picture = Image.open(io.BytesIO(data))
    found = []
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        found.append(np.asarray(picture.convert("RGBA")))
    return found


def colour_at(picture: Image.Image, x: float, y: float) -> Colour:
    """Return the colour at a place given in fractions of the sides."""
    pixel = picture.convert("RGB").getpixel((int(x * picture.width), int(y * picture.height)))
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    return int(red), int(green), int(blue)


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how far two colours are apart in the channel that differs most."""
    return max(abs(float(a) - float(b)) for a, b in zip(one, other, strict=True))


def corners_of(picture: Image.Image) -> list[Colour]:
    """Return the colours in the middle of the four quarters, in the order of `CORNERS`."""
    return [colour_at(picture, x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]


def looks_like(found: Sequence[Colour], expected: Sequence[Colour], within: float = 12) -> bool:
    """Tell whether colours are the same within what lossy encoders change."""
    return all(distance(a, b) <= within for a, b in zip(found, expected, strict=True))
