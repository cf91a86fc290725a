"""The order of rooms: a file imports only what stands above it. See docs: one room decides, one room does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagestorage
import lazypix

SOURCE = Path(lazypix.__file__).parent
FACADE = Path(imagestorage.__file__).parent
# fmt: off
ROOMS = [
    "errors", "formats", "filenames", "thumbhash", "tokens", "transform", "plan", "presets", "cost", "keys", "credentials", "signing", "http", "dialects", "gate", "addresses", "references", "markup", "engine", "outbound", "stores", "catalog", "orders", "cache",
    "generations", "changes", "answers", "admission", "backlog", "lease", "incoming", "fetching", "originals", "resumable", "ticketing", "quarantine", "sharing", "shelf", "variants", "replicas", "parts", "library", "handover", "answer_memory", "negotiation", "delivery", "faces", "upkeep", "replica_settings", "setting_rules", "setting_sources", "setting_groups", "settings",
    "jobs", "composition", "nginx", "server", "wsgi", "client", "celery", "cli", "contrib", "__main__",
]
# fmt: on
# A library carries its own faces (`Library.wsgi`), which are made of it: imported when they are first asked for.
UPWARD = {"library.py": {"delivery", "wsgi", "server"}}
ONLY_IN: dict[str, str | tuple[str, ...]] = {
    "pyvips": "engine",
    "pebble": "engine",
    "sqlalchemy": "catalog",
    "alembic": "catalog",
    "starlette": ("server", "contrib"),
    "uvicorn": "server",
    "asyncio": "server",
    "python_multipart": "server",
    "typer": "cli",
    "pydantic": ("replica_settings", "setting_rules", "setting_groups", "settings", "composition"),
    "redis": ("cache", "changes", "lease"),
    "psycopg": "changes",
    "pymemcache": ("cache", "lease", "stores"),
    "obstore": "stores",
    "celery": "jobs",
    "kombu": "jobs",
    "httpx": ("outbound", "client"),
    "httpcore": "outbound",
    "prometheus_client": "server",
    "django": "contrib",
    "fastapi": "contrib",
    "flask": "contrib",
    "wheezy": "contrib",
}
# What an application's event loop runs; it waits for threads only.
ASYNC = {"contrib/starlette.py", "contrib/fastapi.py"}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def _name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever in it, as `package.module` or `package.module.name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _inside(path: Path) -> list[list[str]]:
    return [module.split(".")[1:] for module in _imports(path) if module.startswith("lazypix.")]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_file_imports_only_from_rooms_above_its_own(path: Path) -> None:
    own = ROOMS.index(_room(path))
    above = {*ROOMS[: own + 1], "__version__", *UPWARD.get(_name(path), ())}
    assert [".".join(parts) for parts in _inside(path) if parts[0] not in above] == []


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=_name)
def test_a_room_stands_above_what_is_in_it(path: Path) -> None:
    siblings = {p.stem for p in path.parent.iterdir()} - {"__init__"}
    if path.parent.name != "catalog":  # the Catalog itself; its siblings are its tables
        assert [p for p in _inside(path) if p[0] == _room(path) and p[1:2] and p[1] in siblings] == []


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_an_adapter_is_imported_in_one_room_only(path: Path) -> None:
    foreign = {module.split(".")[0] for module in _imports(path)}
    assert {name for name in foreign if _room(path) not in ONLY_IN.get(name, _room(path))} == set()


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_only_the_server_is_async(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = [n.lineno for n in tree if isinstance(n, ast.AsyncFunctionDef | ast.AsyncWith | ast.AsyncFor | ast.Await)]
    assert not found or _room(path) == "server" or _name(path) in ASYNC


# --- the façade: another package, on top of the rooms -----------------------------------------------------------

FACADE_FILES = sorted(FACADE.rglob("*.py"))
FACADE_ORDER = ["sizes", "places", "engines", "fleet", "opened", "origins", "storage"]
FACADE_STANDS_ON = {
    "errors", "formats", "filenames", "keys", "http", "transform", "plan", "setting_rules", "incoming", "stores", "cache",
    "catalog", "settings", "contrib", "Image", "Library", "Transform", "Variant",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_lazypix_knows_nothing_of_its_facade(path: Path) -> None:
    assert [module for module in _imports(path) if module.split(".")[0] == "imagestorage"] == []


@pytest.mark.parametrize("path", FACADE_FILES, ids=lambda path: path.name)
def test_the_facade_stands_on_few_rooms_and_one_file_knows_frameworks(path: Path) -> None:
    assert {parts[0] for parts in _inside(path)} <= FACADE_STANDS_ON
    above = FACADE_ORDER[: FACADE_ORDER.index(path.stem)] if path.stem in FACADE_ORDER else []
    assert {m.split(".")[1] for m in _imports(path) if m.startswith("imagestorage.")} <= set(above)
    if path.stem != "engines":
        assert {module.split(".")[0] for module in _imports(path)} & ONLY_IN.keys() == set()
