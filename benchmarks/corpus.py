"""The pictures that everything is measured on, made once, the same on every machine.

Four photographs in the public domain that scikit-image ships, mirrored and enlarged into one 3:2 scene, with the
noise of a camera's sensor on top: a photograph without noise is far too cheap to decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyvips
import skimage.data

FOLDER = Path(__file__).parent / "corpus"
SEED = 20260101

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The folder with the pictures, and the names of the files in it."""

    folder: Path
    jpg_0_5: str = "jpg-0.5mp.jpg"
    jpg_2: str = "jpg-2mp.jpg"
    jpg_12: str = "jpg-12mp.jpg"
    jpg_24: str = "jpg-24mp.jpg"
    png: str = "png-alpha-1mp.png"
    gif: str = "gif-12-frames.gif"
    webp: str = "webp-2mp.webp"
    avif: str = "avif-2mp.avif"

    def path(self, name: str) -> Path:
        """Return the path of one picture."""
        return self.folder / name


_JPEGS = (("jpg_0_5", 0.5), ("jpg_2", 2.0), ("jpg_12", 12.0), ("jpg_24", 24.0))


def build(folder: Path = FOLDER) -> Corpus:
    """Make the pictures that are not there yet; about ten seconds for all of them."""
    corpus = Corpus(folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    for field, megapixels in _JPEGS:
        target = corpus.path(getattr(corpus, field))
        if not target.exists():
            # Baseline, 4:2:0: what cameras and phones write.
            _save(_photograph(megapixels).jpegsave_buffer(Q=92, subsample_mode="on"), target)
    if not all(corpus.path(name).exists() for name in (corpus.png, corpus.gif, corpus.webp, corpus.avif)):
        _build_others(corpus)
    return corpus


def _build_others(corpus: Corpus) -> None:
    _save(_with_alpha(_photograph(1.0, sigma=0)).pngsave_buffer(), corpus.path(corpus.png))
    _save(_animation().gifsave_buffer(), corpus.path(corpus.gif))
    scene = _photograph(2.0)
    _save(scene.webpsave_buffer(Q=85), corpus.path(corpus.webp))
    _save(scene.heifsave_buffer(Q=70, compression="av1", effort=1), corpus.path(corpus.avif))


def _photograph(megapixels: float, sigma: float = 4.0) -> pyvips.Image:
    """Make a scene of this many megapixels, 3:2, with sensor noise of `sigma` levels."""
    width = round((megapixels * 1e6 * 1.5) ** 0.5 / 6) * 6
    height = width * 2 // 3
    scene = _scene()
    enlarged = scene.resize(width / scene.width, vscale=height / scene.height, kernel="lanczos3")
    return _from_pixels(_noisy(enlarged.numpy(), sigma))


def _scene() -> pyvips.Image:
    """Lay four photographs out as the quarters of one picture, each with its mirror image beside it."""
    names = ("coffee", "rocket", "chelsea", "astronaut")
    quarters = [_quarter(getattr(skimage.data, name)()) for name in names]
    return pyvips.Image.arrayjoin(quarters, across=2).copy_memory()


def _quarter(pixels: Pixels) -> pyvips.Image:
    half = _from_pixels(pixels).thumbnail_image(600, height=800, size="force")
    return half.join(half.fliphor(), "horizontal")


def _noisy(pixels: Pixels, sigma: float) -> Pixels:
    """Add noise: most of it in luminance, in bands of rows to bound the memory it takes."""
    random = np.random.default_rng(SEED)
    rows = 256
    result = np.empty_like(pixels)
    for top in range(0, len(pixels), rows):
        band = pixels[top : top + rows].astype(np.float32)
        band += random.standard_normal((*band.shape[:2], 1), dtype=np.float32) * sigma
        band += random.standard_normal(band.shape, dtype=np.float32) * (sigma / 2)
        result[top : top + rows] = np.clip(np.rint(band), 0, 255).astype(np.uint8)
    return result


def _with_alpha(image: pyvips.Image) -> pyvips.Image:
    """Fade the picture out towards its edges."""
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    alpha = np.clip(1.4 - np.hypot(x, y), 0, 1) * 255
    return image.bandjoin(_from_pixels(alpha.astype(np.uint8)[..., None]))


def _animation(frames: int = 12, width: int = 480, height: int = 320) -> pyvips.Image:
    """Pan over the scene."""
    wide = _scene().thumbnail_image(2 * width).copy_memory()
    strip = pyvips.Image.arrayjoin([wide.crop(30 * n, 100, width, height) for n in range(frames)], across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", [80] * frames)
    return strip


def _from_pixels(pixels: Pixels) -> pyvips.Image:
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    return image.copy(interpretation="srgb" if image.bands >= 3 else "b-w")


def _save(data: bytes, target: Path) -> None:
    temporary = target.with_suffix(".part")
    temporary.write_bytes(data)
    temporary.replace(target)
