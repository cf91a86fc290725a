"""Runs a lazypix server on the settings of the environment (LAZYPIX_DATA, LAZYPIX_PORT …), and nothing else."""

from __future__ import annotations

from lazypix.server.run import serve
from lazypix.settings import load

if __name__ == "__main__":  # renderers are spawned, and import this module anew
    serve(load())
