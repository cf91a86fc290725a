"""The six steps of the how-to page, carried out in a project that Django makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.programs import ROOT

PAGE = (ROOT / "docs" / "how-to" / "django.md").read_text(encoding="utf-8")
BEGIN = """
from django.core.management import execute_from_command_line as manage
manage(["manage.py", "startproject", "site1", "."])
manage(["manage.py", "startapp", "app"])
"""
TRY = """
import importlib, os
from pathlib import Path
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "site1.settings"
django.setup()
from django.core.management import call_command
from django.template import Context, Template
from django.test import Client
from app.models import Photo

call_command("makemigrations", "app", verbosity=0)
importlib.invalidate_caches()
call_command("migrate", verbosity=0)
call_command("check")
photo = Photo.objects.create(title="sun", image=Path("sun.png"))
html = Template(Path("page.html").read_text()).render(Context({"photos": Photo.objects.all()}))
address = html.partition('src="')[2].partition('"')[0]
answer = Client().get(address, headers={"host": "localhost"})
print(answer.status_code, answer["Content-Type"], address.count(photo.image.ident))
photo.delete()
call_command("lazypix", "list", "--json")
"""


def steps() -> str:
    return PAGE.partition("## In six steps")[2].partition("\n## ")[0]


def block(beginning: str, kind: str = "py") -> str:
    """The code of the step that names a file."""
    step = steps().partition(f"`{beginning}`")[2] if beginning else steps()
    found = re.search(rf"```{kind}\n(.*?)```", step, re.DOTALL)
    assert found, beginning
    return re.sub(r"(?m)^ {3}", "", found[1])


def run(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + "\n" + text)


def test_the_six_steps_give_pictures(tmp_path: Path) -> None:
    from skimage import data
    from skimage.io import imsave

    run(tmp_path, BEGIN)
    append(tmp_path / "site1" / "settings.py", block("settings.py") + 'INSTALLED_APPS += ["app"]\n')
    append(tmp_path / "site1" / "urls.py", block("urls.py"))
    (tmp_path / "app" / "models.py").write_text(block("models.py"))
    (tmp_path / "app" / "admin.py").write_text(block("admin.py"))
    (tmp_path / "page.html").write_text(block("", "django"))
    imsave(tmp_path / "sun.png", data.coffee())
    checked, tried = run(tmp_path, TRY).splitlines()
    assert "no issues" in checked
    assert tried == "200 image/jpeg 1"
