"""A gallery on Starlette, with the images mounted: `uvicorn app:app`, then http://127.0.0.1:8000/."""

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from lazypix import LazypixError
from lazypix.contrib.opening import open_configured
from lazypix.contrib.starlette import Images

PAGE = """<!doctype html>
<title>Gallery</title>
<form method="post" enctype="multipart/form-data"><input type="file" name="photo"><button>Upload</button></form>
"""

images = Images(lambda: open_configured(base_url="/media"), remote=True)


def gallery(_: Request) -> HTMLResponse:
    """Show the newest photos."""
    tags = images.tags()
    photos = images.library().list(limit=50)
    shown = [tags.img(photo.reference(), "300x200,fit=cover", alt=photo.filename or "") for photo in photos]
    return HTMLResponse(PAGE + "\n".join(shown))


async def upload(request: Request) -> Response:
    """Store a photo; what is no image is refused with a reason."""
    async with request.form() as form:
        photo = form["photo"]
        assert isinstance(photo, UploadFile)
        try:
            await run_in_threadpool(images.add, photo)
        except LazypixError as error:
            return PlainTextResponse(str(error), error.status)
    return RedirectResponse("/", 303)


app = Starlette(
    routes=[
        Route("/", gallery),
        Route("/", upload, methods=["POST"]),
        Mount("/media", routes=images.routes()),  # or Mount("/media", library.asgi), of a library that is open
    ],
    lifespan=images.lifespan,
)
