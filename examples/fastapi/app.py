"""A gallery on FastAPI: `uvicorn app:app`, then http://127.0.0.1:8000/ and /docs."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from lazypix import Library
from lazypix.contrib.fastapi import Images

PAGE = """<!doctype html>
<title>Gallery</title>
<form method="post" enctype="multipart/form-data"><input type="file" name="photo"><button>Upload</button></form>
"""

images = Images(remote=True)
app = FastAPI(title="Gallery", lifespan=images.lifespan)
images.install(app)


@app.get("/", response_class=HTMLResponse)
def gallery(library: Annotated[Library, Depends(images.library)]) -> str:
    """Show the newest photos."""
    photos = library.list(limit=50)
    tags = images.tags()
    return PAGE + "\n".join(
        tags.picture(photo.reference(), "300x200,fit=cover", alt=photo.filename or "") for photo in photos
    )


@app.post("/")
def upload(photo: UploadFile) -> RedirectResponse:
    """Store a photo, and show all."""
    images.add(photo)
    return RedirectResponse("/", 303)


@app.post("/photos", status_code=201)
def add(photo: UploadFile) -> dict[str, Any]:
    """Store a photo; return what an application keeps of it. What is no image is refused with a reason."""
    return images.add(photo).reference().to_json()
