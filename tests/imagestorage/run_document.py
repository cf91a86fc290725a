"""Runs an example as written, line by line, and prints as JSON what each expression gives that nobody keeps."""

from __future__ import annotations

import ast
import base64
import json
import sys
from pathlib import Path
from typing import Any

import tests.imagestorage.shop  # noqa: F401  # from now on `from celery import app` is the application's own


def shown(value: object) -> object:
    """Return what a response says, in a form that can be printed."""
    if value is None or isinstance(value, str):
        return value
    response: Any = value
    said: list[Any] = []
    body = b"".join(response(lambda *given: said.extend(given)))
    kind = f"{type(response).__module__}.{type(response).__name__}"
    return {"type": kind, "status": said[0], "headers": dict(said[1]), "body": base64.b64encode(body).decode()}


def run(code: str, names: dict[str, Any]) -> list[object]:
    """Carry out all statements; return the values of those that are expressions."""
    values: list[object] = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.Expr):
            values.append(shown(eval(compile(ast.Expression(node.value), "example", "eval"), names)))
        else:
            exec(compile(ast.Module([node], []), "example", "exec"), names)
    return values


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]).read_text(), {"image_id": sys.argv[2]})))
