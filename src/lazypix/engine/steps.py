"""The pipeline: one function a step, and the list of them in order."""

from __future__ import annotations

from collections.abc import Callable

import pyvips

from lazypix.plan import Box, Plan, Smart

PROFILE = "icc-profile-data"
ORIENTATION = "orientation"
_SRGB_NAMES = (b"sRGB IEC61966-2.1", "sRGB IEC61966-2.1".encode("utf-16-be"))
# Formats in which a grey image may stay grey and keep the profile it came with.
_GREY_PROFILES = ("jpg", "png")

Step = Callable[[pyvips.Image, Plan], pyvips.Image]


def cut_region(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Cut out the plan's region, brought down to the size at which the decoder delivered the image."""
    if plan.region is None:
        return image
    box = plan.region
    left, top = min(box.left // plan.shrink, image.width - 1), min(box.top // plan.shrink, image.height - 1)
    width = max(1, min(round(box.width / plan.shrink), image.width - left))
    height = max(1, min(round(box.height / plan.shrink), image.height - top))
    return image.crop(left, top, width, height)


def resize(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Resize to the plan's size, with premultiplied alpha so that hidden colours do not bleed in."""
    if (image.width, image.height) == (plan.width, plan.height):
        return image
    if not image.hasalpha():
        return _scaled(image, plan)
    # In floating point, although 8 bit take a third less time: those cut off what a sharp edge overshoots, which
    # leaves a bright seam where transparency begins.
    return _scaled(image.premultiply(), plan).unpremultiply().cast(image.format)


def _scaled(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Scale to the plan's size.

    A JPEG decoder that shrinks drops the part of a pixel that is left at the edge (4242 / 8 = 530.25 is delivered as
    530): scaling by the delivered size would stretch the picture by as much, so the true ratio is taken, and the
    size then brought to the pixel. WebP's decoder delivers the whole picture.
    """
    if plan.source != "jpg" or plan.shrink == 1:
        return image.resize(plan.width / image.width, vscale=plan.height / image.height)
    across = plan.width * plan.shrink / plan.source_width
    down = plan.height * plan.shrink / plan.source_height
    scaled = image.resize(across, vscale=down)
    if (scaled.width, scaled.height) == (plan.width, plan.height):
        return scaled
    return scaled.embed(0, 0, plan.width, plan.height, extend="copy")


def to_srgb(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Bring any colour space and depth to 8 bit sRGB (or grey)."""
    return brought_to_srgb(image, keeps_grey=plan.format in _GREY_PROFILES)


def brought_to_srgb(image: pyvips.Image, *, keeps_grey: bool = False) -> pyvips.Image:
    """Return the image in 8 bit sRGB, or grey; `keeps_grey`: a grey one may keep its own profile."""
    grey = image.interpretation in ("b-w", "grey16")
    if not image.get_typeof(PROFILE):
        if image.interpretation == "cmyk":
            return image.icc_transform("srgb", input_profile="cmyk", intent="perceptual")
        return image.colourspace("b-w" if grey else "srgb").cast("uchar")
    if grey and keeps_grey:
        return image.colourspace("b-w").cast("uchar")
    if image.format == "uchar" and not grey and any(name in image.get(PROFILE) for name in _SRGB_NAMES):
        return image
    try:
        return image.icc_transform("srgb", embedded=True, intent="perceptual", depth=8)
    except pyvips.Error:  # a damaged profile: the pixels are still good
        return image.colourspace("srgb").cast("uchar")


def turn(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Rotate by quarter turns and mirror."""
    if plan.turn.quarters:  # reads in another order than the sequential decoder delivers: from memory
        image = image.copy_memory().rot(f"d{plan.turn.quarters * 90}")
    return _said_to_be_upright(image.fliphor() if plan.turn.mirror else image)


def _said_to_be_upright(image: pyvips.Image) -> pyvips.Image:
    """Forget the orientation that the original was stored under.

    The AVIF encoder would write it down as a turn of the picture, which is none of the metadata that are left out:
    every viewer would turn what was turned already.
    """
    if not image.get_typeof(ORIENTATION):
        return image
    upright = image.copy()
    upright.remove(ORIENTATION)
    return upright


def flatten(image: pyvips.Image, plan: Plan) -> pyvips.Image:
    """Put the plan's background behind transparent pixels."""
    if plan.background is None or not image.hasalpha():
        return image
    colour = list(bytes.fromhex(plan.background))
    if image.bands < 3:  # a grey image behind which a colour goes is no longer grey
        grey = colour[0] == colour[1] == colour[2]
        return image.flatten(background=colour[:1]) if grey else image.colourspace("srgb").flatten(background=colour)
    return image.flatten(background=colour)


def cut(image: pyvips.Image, box: Box) -> pyvips.Image:
    """Cut a rectangle out of the turned image."""
    return image.crop(box.left, box.top, box.width, box.height)


STEPS: tuple[Step, ...] = (cut_region, resize, to_srgb, turn, flatten)
"""In this order; what is left after them is `cut`, whose place the first frame decides for all."""


def place(image: pyvips.Image, plan: Plan) -> Box | None:
    """Decide where the plan's crop lies in this (first) frame."""
    if not isinstance(plan.crop, Smart):
        return plan.crop
    found = image.smartcrop(plan.crop.width, plan.crop.height, interesting=plan.crop.by)
    # libvips leaves the place of the cut in the result's offsets, counted backwards.
    return Box(left=-found.xoffset, top=-found.yoffset, width=plan.crop.width, height=plan.crop.height)
