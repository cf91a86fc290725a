"""The application's pages: a wheezy.web application that answers requests for pictures with `imagestorage`."""

from __future__ import annotations

import os
from functools import partial

from tests.imagestorage.shop import app
from wheezy.http import WSGIApplication
from wheezy.routing import url
from wheezy.web.handlers import BaseHandler
from wheezy.web.middleware import bootstrap_defaults, path_routing_middleware_factory

from imagestorage import fleet, storage
from lazypix.cache.opening import open_cache

# The tests are about what memcached says, not about how soon.
vars(fleet)["open_cache"] = partial(open_cache, timeout_s=60)
storage.s3_store_image = app.task(storage.s3_store_image)


class Picture(BaseHandler):  # type: ignore[misc]  # it has no types
    def get(self) -> object:
        picture = storage.S3ImageStorage(self.route_args["image_id"], "jpg")
        picture.configure(
            {"access_key": os.environ["SHOP_ACCESS_KEY"], "secret_key": os.environ["SHOP_SECRET_KEY"]},
            os.environ["SHOP_BUCKET"],
            os.environ["SHOP_BASE_URL"],
            "/",
        )
        picture.configure_webengine("wheezy")
        picture.configure_memcache([os.environ["SHOP_MEMCACHED"]])
        return picture.get_requested_image(self.request.urlparts.geturl())


application = WSGIApplication(
    [bootstrap_defaults(url_mapping=[url(r"pictures/(?P<image_id>.*)", Picture)]), path_routing_middleware_factory],
    {},
)
