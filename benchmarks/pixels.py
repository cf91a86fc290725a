"""What the picture costs: how near our pixels are to a full decode, and what the encoders' settings cost and save."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
from skimage.metrics import structural_similarity

from benchmarks.corpus import Corpus
from benchmarks.options import Options
from benchmarks.report import Table
from lazypix import Library

_CASES = (("jpg_0_5", 300), ("jpg_2", 300), ("jpg_12", 300), ("jpg_12", 1200), ("jpg_24", 300))
_ENCODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize_coding": True},
    "progressive": {"interlace": True},
}
_EFFORTS: tuple[tuple[str, str, dict[str, Any], tuple[int, ...]], ...] = (
    ("WebP", "webpsave_buffer", {"Q": 80}, (2, 4)),
    ("AVIF", "heifsave_buffer", {"Q": 60, "compression": "av1", "bitdepth": 8}, (1, 4)),
)


def run(options: Options, corpus: Corpus, folder: Path) -> list[Table]:
    """Measure all of it."""
    return [_similarity(corpus, folder), _progressive(options, corpus), _efforts(corpus)]


def _similarity(corpus: Corpus, folder: Path) -> Table:
    table = Table(
        title="Likeness to a full decode",
        note="SSIM of the pixels before encoding, against decoding all of the original and resizing once "
        "(Lanczos 3); libvips' own thumbnailer beside it.",
        columns=["picture → width", "SSIM, ours", "SSIM, libvips' thumbnail"],
    )
    with Library.open(folder / "ssim-data") as library:
        for field, width in _CASES:
            path = corpus.path(getattr(corpus, field))
            image = library.add(path)
            ours = pyvips.Image.new_from_buffer(library.variant(image.ident, f"{width}x,format=png").body, "")
            full = _fully_decoded(path, ours.width, ours.height)
            theirs = pyvips.Image.thumbnail(str(path), ours.width, height=ours.height, size="force")
            name = f"{image.width * image.height / 1e6:.2g} MP → {width}"
            table.add(name, f"{_ssim(ours, full):.4f}", f"{_ssim(theirs, full):.4f}")
    return table


def _fully_decoded(path: Path, width: int, height: int) -> pyvips.Image:
    image = pyvips.Image.new_from_file(str(path))
    return image.resize(width / image.width, vscale=height / image.height)


def _ssim(one: pyvips.Image, other: pyvips.Image) -> float:
    return float(structural_similarity(_array(one), _array(other), channel_axis=2))


def _array(image: pyvips.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image.numpy(), dtype=np.uint8)


def _progressive(options: Options, corpus: Corpus) -> Table:
    table = Table(
        title="Progressive JPEG",
        note="Encoding alone, quality 80, from pixels in memory; CPU time.",
        columns=["width", *(f"{name}, {unit}" for unit in ("CPU ms", "bytes") for name in _ENCODINGS)],
    )
    for width in (300, 1200):
        image = pyvips.Image.thumbnail(str(corpus.path(corpus.jpg_12)), width).copy_memory()
        times = {
            name: _encode_ms(image, "jpegsave_buffer", {"Q": 80, **settings}, 10 * options.rounds)
            for name, settings in _ENCODINGS.items()
        }
        sizes = {name: len(image.jpegsave_buffer(Q=80, **settings)) for name, settings in _ENCODINGS.items()}
        table.add(str(width), *(f"{ms:.1f}" for ms in times.values()), *(f"{size:,}" for size in sizes.values()))
    return table


def _efforts(corpus: Corpus) -> Table:
    table = Table(
        title="Encoders' efforts",
        note="Encoding alone, 1200 px, from pixels in memory; CPU time. The lower effort is ours, "
        "the higher is libvips'.",
        columns=["format", "effort", "CPU ms", "bytes", "CPU, to libvips'", "bytes, to libvips'"],
    )
    image = pyvips.Image.thumbnail(str(corpus.path(corpus.jpg_12)), 1200).copy_memory()
    for name, saver, fixed, efforts in _EFFORTS:
        every = [{**fixed, "effort": effort} for effort in efforts]
        times = [_encode_ms(image, saver, settings, 5) for settings in every]
        sizes = [len(getattr(image, saver)(**settings)) for settings in every]
        for effort, ms, size in zip(efforts, times, sizes, strict=True):
            shares = (f"{ms / times[-1]:.2f}", f"{size / sizes[-1]:.3f}")
            table.add(name, str(effort), f"{ms:.0f}", f"{size:,}", *shares)
    return table


def _encode_ms(image: pyvips.Image, saver: str, settings: dict[str, Any], times: int) -> float:
    taken = []
    for _ in range(times):
        begin = time.process_time()
        getattr(image, saver)(**settings)
        taken.append(time.process_time() - begin)
    return statistics.median(taken) * 1000
