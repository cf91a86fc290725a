"""The documentation says what is so: its examples run, its links lead somewhere, its reference is the code's."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from skimage import data
from skimage.io import imsave

import lazypix
from lazypix.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def python_examples() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, code in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        ):
            found.append((f"{page.relative_to(ROOT)}[{number}]", code))
    return found


@pytest.mark.parametrize(("where", "code"), python_examples(), ids=[where for where, _ in python_examples()])
def test_python_examples_run_as_written(where: str, code: str, tmp_path: Path) -> None:
    imsave(tmp_path / "sunset.jpg", data.coffee())
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "example.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{where}: {done.stderr}"
    assert done.stdout.strip(), f"{where} prints what it did"


def toml_examples() -> list[tuple[str, str]]:
    pages = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    return [
        (f"{name}: {code.splitlines()[0]}", code)
        for name, text in pages.items()
        for code in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    ]


@pytest.mark.parametrize(("where", "code"), toml_examples(), ids=[where for where, _ in toml_examples()])
def test_settings_in_examples_are_accepted(where: str, code: str) -> None:
    Settings.model_validate(tomllib.loads(code))


def test_the_readme_example_is_ten_lines_and_writes_a_picture(tmp_path: Path) -> None:
    code = next(code for where, code in python_examples() if where.startswith("README"))
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    imsave(tmp_path / "sunset.jpg", data.coffee())
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, timeout=180)
    assert (tmp_path / "sunset.webp").read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_every_page_of_the_documentation_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            target = (page.parent / link).resolve()
            if target.is_dir():
                todo += target.glob("*.md")
            elif "://" not in link:
                todo.append(target)
    assert set(PAGES) <= reached


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference.py", "--check"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_public_names_are_there_and_documented() -> None:
    for name in lazypix.__all__:
        value = getattr(lazypix, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="Nothing"):
        getattr(lazypix, "Nothing")  # noqa: B009


def test_public_methods_of_the_library_are_documented() -> None:
    for name, member in inspect.getmembers(lazypix.Library, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
