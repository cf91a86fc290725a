"""The examples of the client's page run against a server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from skimage import data
from skimage.io import imsave
from tests.server.running import running

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "client.md"


def test_the_examples_run_as_written(tmp_path: Path) -> None:
    codes = re.findall(r"```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(codes) == 2
    imsave(tmp_path / "sunset.jpg", data.coffee())
    with running(tmp_path / "data", api_keys="a-key-of-16-chars") as server:
        # The picture is small: it goes in pieces all the same.
        for code in (codes[0], codes[1].replace("resume=", "resumable_bytes=1000, piece_bytes=20_000, resume=")):
            done = subprocess.run(
                [sys.executable, "-c", code.replace("https://img.example", server.url)],
                cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "100 %"
    assert (tmp_path / "uploads.json").read_text() == "{}"
