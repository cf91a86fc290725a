"""The work itself, as plain functions on a path: what a thread or a renderer process runs."""

from __future__ import annotations

import logging
import os

# libvips reads this once, when it is loaded. The parallelism here is one image a worker: threads inside of
# libvips would only fight over the same cores. An application that set it keeps its own choice.
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import pyvips

from lazypix.engine.encode import encode
from lazypix.engine.load import animation, failed, load_frames, verify
from lazypix.engine.steps import STEPS, cut, place
from lazypix.plan import Limits, Plan, Probe

# No operation is asked for twice here; the cache would only hold on to memory and files.
pyvips.cache_set_max(0)
pyvips.block_untrusted_set(True)
# libvips tells each of its steps at the level INFO: several lines a picture, in the log of every application and
# worker that logs at that level. Who set a level keeps it.
if logging.getLogger("pyvips").level == logging.NOTSET:
    logging.getLogger("pyvips").setLevel(logging.WARNING)


def inspect(path: str, limits: Limits) -> Probe:
    """Probe and fully decode the file at `path`; see `Engine.inspect`."""
    return verify(path, limits)


def render(path: str, plan: Plan) -> bytes:
    """Carry out `plan` on the file at `path`; see `Engine.render`."""
    try:
        frames = [_apply_steps(frame, plan) for frame in load_frames(path, plan)]
        if plan.crop is not None:
            frames = _cut_all(frames, plan)
        moving = animation(path, plan.source) if plan.frames > 1 else {}
        return encode(frames, moving, plan)
    except pyvips.Error as error:
        raise failed(error) from None


def _apply_steps(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    for step in STEPS:
        image = step(image, plan)
    return image


def _cut_all(frames: list[pyvips.Image], plan: Plan) -> list[pyvips.Image]:
    # Finding the interesting part reads the pixels twice, which a sequentially decoded image cannot give.
    frames = [frames[0].copy_memory(), *frames[1:]]
    box = place(frames[0], plan)
    assert box is not None
    return [cut(frame, box) for frame in frames]
