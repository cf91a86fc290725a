"""What a release consists of."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_source_release_has_all_that_make_needs_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=180)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    needed = {*re.findall(r"scripts/[a-z]+\.(?:sh|py)", makefile), *re.findall(r"requirements/[a-z]+\.txt", makefile)}
    assert needed
    assert needed | {"Dockerfile", ".dockerignore", "src/imagestorage/py.typed", "src/lazypix/py.typed"} <= names
    assert {f"examples/{name}/app.py" for name in ("asgi", "fastapi", "flask", "wheezy", "wsgi")} <= names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"src", "tests", "benchmarks", "examples", "docs", "deploy", "requirements", "scripts"}
