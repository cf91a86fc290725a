"""lazypix: store an image once, ask for any size of it by URL."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazypix.catalog import Image
    from lazypix.client.remote import Client
    from lazypix.errors import LazypixError
    from lazypix.library import Library
    from lazypix.plan import Limits
    from lazypix.references import ImageReference
    from lazypix.tokens import Focal, Region
    from lazypix.transform import Transform
    from lazypix.variants import Variant

__all__ = [
    "Client", "Focal", "Image", "ImageReference", "LazypixError", "Library", "Limits", "Region", "Transform",
    "Variant", "__version__",
]  # fmt: skip
__version__ = version("lazypix")

# Where each public name lives. They are imported when first asked for, so that a renderer process, which needs
# none of them, starts fast and stays small.
_HOMES = {
    "Client": "lazypix.client.remote",
    "Focal": "lazypix.tokens",
    "Image": "lazypix.catalog",
    "ImageReference": "lazypix.references",
    "LazypixError": "lazypix.errors",
    "Library": "lazypix.library",
    "Limits": "lazypix.plan",
    "Region": "lazypix.tokens",
    "Transform": "lazypix.transform",
    "Variant": "lazypix.variants",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
