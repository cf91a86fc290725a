"""A gallery on wheezy.web: `waitress-serve app:main`, then http://127.0.0.1:8080/."""

from typing import Any

from wheezy.http import HTTPResponse, WSGIApplication
from wheezy.routing import url
from wheezy.web.handlers import BaseHandler
from wheezy.web.middleware import (
    bootstrap_defaults,
    http_error_middleware_factory,
    path_routing_middleware_factory,
)

from lazypix import LazypixError
from lazypix.contrib.wheezy import Images

PAGE = """<!doctype html>
<title>Gallery</title>
<form method="post" enctype="multipart/form-data"><input type="file" name="photo"><button>Upload</button></form>
"""

images = Images(remote=True)


class GalleryHandler(BaseHandler):
    """Shows the newest photos, and stores others."""

    def get(self) -> Any:
        """Show the newest photos."""
        tags, response = images.tags(), HTTPResponse()
        response.write(PAGE)
        for photo in images.library().list(limit=50):
            response.write(tags.img(photo.reference(), "300x200,fit=cover", alt=photo.filename or ""))
        return response

    def post(self) -> Any:
        """Store a photo."""
        try:
            images.add(self.request.files["photo"][0])
        except LazypixError as error:
            return images.refused(self.request, error)
        return self.see_other_for("gallery")


urls = [url("", GalleryHandler, name="gallery"), *images.urls()]
options: dict[str, Any] = {"render_template": None, "MAX_CONTENT_LENGTH": 64 * 1024 * 1024}
main = WSGIApplication(
    middleware=[bootstrap_defaults(url_mapping=urls), http_error_middleware_factory, path_routing_middleware_factory],
    options=options,
)
