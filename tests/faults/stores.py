"""Stores by address in processes that tests start: secrets come in the environment."""

from __future__ import annotations

import os

from lazypix.stores import BlobStore
from lazypix.stores.addresses import open_store


def open_named(address: str) -> BlobStore:
    """Open a store; an S3 one with the keys in `TEST_ACCESS_KEY` and `TEST_SECRET_KEY`."""
    secrets = {"access_key": os.environ["TEST_ACCESS_KEY"], "secret_key": os.environ["TEST_SECRET_KEY"]}
    return open_store(address, secrets=secrets if address.startswith("s3:") else {})
