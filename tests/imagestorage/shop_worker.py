"""What the application's worker loads: `celery -A tests.imagestorage.shop_worker worker`."""

from __future__ import annotations

from tests.imagestorage.shop import app

from imagestorage import storage

storage.s3_store_image = app.task(storage.s3_store_image)
