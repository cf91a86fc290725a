"""Links that are signed as the documentation tells other languages to are those that we sign."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from lazypix.signing.links import KeyRing, LinkScope

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "signed-links.md").read_text(encoding="utf-8")
RING = KeyRing.of(["k1:a-secret-of-43-characters-as-it-was-printed"])


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def printed(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout.split()


def test_the_example_in_python_signs_as_we_do() -> None:
    lasting, expiring = printed(sys.executable, "-c", examples("python")[1])
    assert lasting == RING.sign("/image/300x200/cat.webp")
    path, _, query = expiring.partition("?")
    link = RING.verify(path, query)
    assert link is not None
    assert expiring == RING.sign("/image/cat.jpg?width=300&height=200", expires_at=link.expires_at)


def test_the_example_in_a_shell_signs_as_we_do() -> None:
    assert printed("sh", "-c", examples("sh")[1]) == [RING.sign("/image/300x200/cat.webp")]


def test_other_scopes_are_signed_as_the_page_says() -> None:
    """A known answer, so that no later version changes what other programs rely on."""
    link = RING.sign("/image/x.jpg", scope=LinkScope("800x600"), expires_at=1_800_000_300, subject="/image/cat")
    covered = "lazypix link 1\n/image/cat?s=k1.tro94c.800x600"
    script = (
        f"printf '{covered}' | openssl dgst -sha256 -hmac {RING.keys[0].secret.decode()} -binary | openssl base64 -A"
    )
    mac = printed("sh", "-c", script)[0].translate(str.maketrans("+/", "-_", "="))
    assert link == f"/image/x.jpg?s=k1.tro94c.800x600.{mac}"
