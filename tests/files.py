"""What files lie in a folder, which others may be changing meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def files_in(root: Path) -> set[Path]:
    """Return all files below a folder; one that is not there has none. A folder that goes meanwhile is left out."""
    # pathlib's rglob raises when a folder goes between being listed and being looked into.
    return {Path(folder, name) for folder, _, names in os.walk(root) for name in names}
