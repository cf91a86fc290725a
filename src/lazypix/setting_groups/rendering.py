"""What images may be, and what making variants may cost."""

from __future__ import annotations

import os

from pydantic import BaseModel, Field

from lazypix.engine.renderers import RendererLimits
from lazypix.plan import Limits

_LIMITS, _RENDERER = Limits(), RendererLimits()


class RenderingSettings(BaseModel):
    """What images may be, and what making variants may cost."""

    max_bytes: int = Field(_LIMITS.max_bytes, ge=1, description="Bytes of an original.")
    max_pixels: int = Field(_LIMITS.max_pixels, ge=1, description="Pixels of an image, summed over its frames.")
    max_frames: int = Field(_LIMITS.max_frames, ge=1, description="Frames of an animation.")
    max_side: int = Field(_LIMITS.max_side, ge=1, le=65_535, description="Pixels of a result's width and height.")
    renderers: int = Field(
        os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Renderer processes in all, at least one a server process. Default: one a core.",
    )
    render_deadline_s: float = Field(_RENDERER.deadline_s, gt=0, description="Seconds for one image in a renderer.")
    render_memory_bytes: int = Field(
        _RENDERER.memory_bytes, ge=0, description="Address space of one renderer process; 0: no limit."
    )
    renders_per_process: int = Field(
        _RENDERER.renders, ge=1, description="Renders after which a renderer process is replaced."
    )
    queue: int = Field(256, ge=1, description="Variants being made or waiting in one server process; beyond it: 503.")
    queue_s: float = Field(
        20.0,
        gt=0,
        description="Seconds of work for each renderer that they may be, estimated from pixels and formats; beyond "
        "it: 503.",
    )
    request_deadline_s: float = Field(30.0, gt=0, description="Seconds a request waits for its variant; then 503.")
