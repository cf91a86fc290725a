"""How good the estimates of `lazypix.cost` are: `python -m benchmarks.cost` (half a minute, one core).

Prints for a handful of plans, and for verifying their originals, the CPU seconds taken, those estimated, the ratio.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lazypix.cost import rendering_s, verifying_s
from lazypix.engine.render import inspect, render
from lazypix.plan import Limits, Plan, make_plan
from lazypix.transform import Transform

SIDES = (4000, 3000)
LIMITS = Limits()
ORIGINALS = {
    "jpg": {"quality": 85},
    "png": {"compress_level": 6},
    "webp": {"quality": 85},
    "avif": {"quality": 70, "speed": 10},
}
TRANSFORMS = (
    "300x,format=jpg",
    "1200x,format=jpg",
    "300x,format=webp",
    "1200x,format=webp",
    "300x,format=avif",
    "1200x,format=avif",
    "4000x,format=avif",
    "1200x,format=png",
    "300x,format=gif",
    "8000x6000,fit=fill,format=jpg",
)


def photograph(width: int, height: int) -> Image.Image:
    """Draw something that compresses as a photograph does: soft shapes, and a camera's noise."""
    random = np.random.default_rng(5)
    shapes = Image.fromarray(random.integers(0, 256, (height // 100, width // 100, 3), dtype=np.uint8))
    soft = np.asarray(shapes.resize((width, height), Image.Resampling.BILINEAR), dtype=float)
    return Image.fromarray(np.clip(soft + random.normal(0, 4, soft.shape), 0, 255).astype(np.uint8))


def measure(work: Callable[[], object]) -> float:
    """Return CPU seconds of the quicker of two runs."""
    taken = []
    for _ in range(2):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken)


def rows(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Yield what was done, how long it took, and how long it was estimated to take."""
    picture = photograph(*SIDES)
    for name, options in ORIGINALS.items():
        file = io.BytesIO()
        picture.save(file, "jpeg" if name == "jpg" else name, **options)
        path = folder / f"original.{name}"
        path.write_bytes(file.getvalue())
        probe = inspect(str(path), LIMITS)
        yield f"verify {name}", measure(lambda: inspect(str(path), LIMITS)), verifying_s(name, path.stat().st_size)  # noqa: B023
        for text in TRANSFORMS if name == "jpg" else TRANSFORMS[:1]:
            plan: Plan = make_plan(Transform.parse(text), probe, LIMITS)
            yield f"{name} to {text}", measure(lambda: render(str(path), plan)), rendering_s(plan)  # noqa: B023


if __name__ == "__main__":
    print(f"{'work':45}{'took s':>9}{'estimated':>11}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        for work, took, estimated in rows(Path(name)):
            print(f"{work:45}{took:9.3f}{estimated:11.3f}{estimated / took:8.2f}", flush=True)
