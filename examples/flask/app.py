"""A gallery on Flask: `flask --app app run`, then http://127.0.0.1:5000/."""

from flask import Flask, redirect, render_template_string, request
from werkzeug.wrappers import Response

from lazypix.contrib.flask import Lazypix

PAGE = """<!doctype html>
<title>Gallery</title>
<form method="post" enctype="multipart/form-data"><input type="file" name="photo"><button>Upload</button></form>
{% for photo in photos %}
<a href="{{ photo|image_url }}">{{ image_tag(photo, "300x200,fit=cover", alt=photo.filename or "") }}</a>
{% endfor %}
"""

app = Flask(__name__)
app.config.from_prefixed_env()
lazypix = Lazypix(app)


@app.get("/")
def gallery() -> str:
    """Show the newest photos."""
    return render_template_string(PAGE, photos=lazypix.library.list(limit=50))


@app.post("/")
def upload() -> Response:
    """Store a photo; what is no image is refused with a reason."""
    lazypix.add(request.files["photo"])
    return redirect("/", 303)
