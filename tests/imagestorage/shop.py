"""An application's own Celery application: the one that the document has from `from celery import app`."""

from __future__ import annotations

import os
from typing import Any

import celery

app: Any = celery.Celery("shop", broker=os.environ["SHOP_BROKER"])
celery.app = app
