"""The WSGI face: raw targets on servers that tell them and on those that do not, bodies, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from tests.engine.pictures import jpg, quadrants

from lazypix import Library
from lazypix.errors import StoreFailed
from lazypix.http import Answer, FileBody, StreamBody
from lazypix.wsgi import StreamPieces, WsgiApp, opened, request_of, start

MIB = 1024 * 1024


def environ(path: str = "/", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": "", **more}
    setup_testing_defaults(made)
    if "SCRIPT_NAME" not in more:
        made["SCRIPT_NAME"] = ""
    return made


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"PATH_INFO": "/image/200x100,fit=cover/a.jpg"}, "/image/200x100,fit=cover/a.jpg"),
        ({"PATH_INFO": "/image/200x100,gravity=0.3:0.7/a.jpg"}, "/image/200x100,gravity=0.3:0.7/a.jpg"),
        ({"PATH_INFO": "/image/200/<100/a.jpg"}, "/image/200/%3C100/a.jpg"),
        ({"PATH_INFO": "/image/a\xc3\xa4%.jpg"}, "/image/a%C3%A4%25.jpg"),
        # a server that tells the target as it came
        ({"PATH_INFO": "/image/<1", "RAW_URI": "/image/<1?x=/y"}, "/image/<1"),
        ({"PATH_INFO": "/image/<1", "REQUEST_URI": "/image/%3c1"}, "/image/%3c1"),
        ({"PATH_INFO": "/image/a/b", "REQUEST_URI": "/image/a%2Fb"}, "/image/a%2Fb"),
        ({"PATH_INFO": "/image/a", "REQUEST_URI": "http://host:80/image/%61?q"}, "/image/%61"),
        ({"PATH_INFO": "/image/a", "REQUEST_URI": "http://host"}, "/image/a"),
        ({"PATH_INFO": "/image/%zz", "RAW_URI": "/image/%zz"}, "/image/%zz"),
        ({"PATH_INFO": "/image/\xff", "RAW_URI": "/image/\xff"}, "/image/\xff"),
        ({"PATH_INFO": "/image/\xef\xbf\xbd", "RAW_URI": "/image/%ff"}, "/image/%ff"),
        # one that drops slashes at the beginning
        ({"PATH_INFO": "/image/a", "REQUEST_URI": "//image/a"}, "//image/a"),
        # mounted; the prefix may be written in several ways, or taken away by a proxy
        ({"SCRIPT_NAME": "/my app", "PATH_INFO": "/image/a", "RAW_URI": "/my%20app/image/%61"}, "/image/%61"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/image/a", "RAW_URI": "/%61pp/image/%61"}, "/image/%61"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/image/a", "RAW_URI": "/image/%61"}, "/image/%61"),
        # middleware sent it elsewhere: what came is not what is asked for
        ({"PATH_INFO": "/image/b", "RAW_URI": "/image/a", "REQUEST_URI": "/image/a"}, "/image/b"),
    ],
)  # fmt: skip
def test_the_path_is_the_one_that_came(given: dict[str, str], path: str) -> None:
    assert request_of(environ(given.pop("PATH_INFO"), **given)).path == path


@pytest.mark.parametrize(
    ("mount", "given", "path"),
    [
        ("/media", "/media/image/a", "/image/a"),
        ("/media", "/image/a", ""),
        ("/media", "/mediator/image/a", ""),
        ("/media", "/media", ""),
    ],
)
def test_a_mount_is_taken_away(mount: str, given: str, path: str) -> None:
    assert request_of(environ(given), mount).path == path
    assert request_of(environ(given, RAW_URI=given), mount).path == path


def test_an_encoded_mount_is_taken_away() -> None:
    assert request_of(environ("/media/image/a", RAW_URI="/m%65dia/image/%61"), "/media").path == "/image/%61"


def test_query_and_conditions_are_read() -> None:
    request = request_of(environ(
        "/image/a", QUERY_STRING="width=%31", HTTP_ACCEPT="image/webp", HTTP_IF_NONE_MATCH='"a"', HTTP_IF_MATCH="*",
        HTTP_IF_MODIFIED_SINCE="m", HTTP_IF_UNMODIFIED_SINCE="u", HTTP_RANGE="bytes=0-", HTTP_IF_RANGE="r",
    ))  # fmt: skip
    assert (request.query, request.accept, request.if_none_match, request.if_match) == (
        "width=%31", "image/webp", '"a"', "*")  # fmt: skip
    assert (request.if_modified_since, request.if_unmodified_since, request.range, request.if_range) == (
        "m", "u", "bytes=0-", "r")  # fmt: skip


class Sent:
    """What a server would send; the body is read to its end and closed."""

    def __init__(self, app: Any, **given: Any) -> None:
        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            self.status, self.headers = int(status[:3]), dict(headers)
            return lambda _: None

        given = {"wsgi.file_wrapper": FileWrapper} | given
        body = app(environ(given.pop("PATH_INFO"), **given), start_response)
        try:
            self.body = b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with Library.open(tmp_path_factory.mktemp("wsgi")) as opened_library:
        opened_library.add(jpg(quadrants(400, 300)), ident="photo")
        yield opened_library


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/image/200x/photo.jpg", 200),
        ("/image/photo.jpg", 200),
        ("/image/none.jpg", 404),
        ("/image/0x/photo.jpg", 400),
        ("/other", 404),
    ],
)
def test_images_and_errors_conform_to_the_specification(
    library: Library, method: str, path: str, status: int
) -> None:
    sent = Sent(validator(library.wsgi), PATH_INFO=path, REQUEST_METHOD=method)
    assert sent.status == status
    assert len(sent.body) == (int(sent.headers["content-length"]) if method == "GET" else 0)


def test_a_client_that_has_the_image_is_told_so(library: Library) -> None:
    tag = Sent(library.wsgi, PATH_INFO="/image/200x/photo.jpg").headers["etag"]
    sent = Sent(validator(library.wsgi), PATH_INFO="/image/200x/photo.jpg", HTTP_IF_NONE_MATCH=tag)
    assert (sent.status, sent.body) == (304, b"")


def test_what_is_served_nowhere_else_is_refused(library: Library) -> None:
    refused = Sent(validator(library.wsgi), PATH_INFO="/image/200x/photo.jpg", REQUEST_METHOD="PUT")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    asked = Sent(validator(library.wsgi), PATH_INFO="/image/200x/photo.jpg", REQUEST_METHOD="OPTIONS")
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (204, "*")


def test_a_mounted_application_answers_below_its_mount_only(library: Library) -> None:
    app = WsgiApp(library.delivery, mount="/media/")
    assert Sent(app, PATH_INFO="/media/image/200x/photo.jpg").status == 200
    assert Sent(app, PATH_INFO="/image/200x/photo.jpg").status == 404


def test_a_mistake_of_ours_is_answered_and_logged(
    library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> Answer:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(library.delivery, "answer", fail)
    sent = Sent(validator(library.wsgi), PATH_INFO="/image/photo.jpg")
    assert sent.status == 500
    assert b"secret" not in sent.body
    assert "an image could not be answered" in caplog.text


# --- bodies ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


@pytest.mark.parametrize(("first", "length"), [(0, MIB), (10, MIB - 10), (10, 500_000), (MIB - 1, 1)])
@pytest.mark.parametrize("wrapper", [FileWrapper, None])
def test_a_part_of_a_file_is_sent(file: Path, first: int, length: int, wrapper: Any) -> None:
    answer = Answer(status=206, headers=(), body=FileBody(path=file, start=first, length=length))
    more = {"wsgi.file_wrapper": wrapper} if wrapper else {}
    body = start(answer, environ(**more), lambda *_: None)
    assert b"".join(body) == file.read_bytes()[first : first + length]
    assert isinstance(body, FileWrapper) == (wrapper is not None and first + length == MIB)
    body.close()  # type: ignore[attr-defined]


def test_a_file_that_is_gone_is_an_error_and_no_empty_image(tmp_path: Path) -> None:
    gone = Answer(status=200, headers=(), body=FileBody(path=tmp_path / "gone", start=0, length=9))
    assert opened(gone)[0].status == 503


def test_a_file_that_became_shorter_breaks_the_response_off(file: Path) -> None:
    _, body = opened(Answer(status=200, headers=(), body=FileBody(path=file, start=0, length=MIB + 1)))
    with pytest.raises(OSError, match="1048576 of 1048577"):
        list(body)
    body.close()  # type: ignore[attr-defined]


def test_a_body_from_the_store_is_sent_in_its_pieces() -> None:
    asked = []

    def read(first: int, length: int) -> Iterator[bytes]:
        asked.append((first, length))
        yield from (b"ab", b"cd")

    answer = Answer(status=200, headers=(), body=StreamBody(read=read, start=3, length=4))
    _, body = opened(answer)
    assert (list(body), asked) == ([b"ab", b"cd"], [(3, 4)])
    _, cut = opened(Answer(status=200, headers=(), body=StreamBody(read=read, start=3, length=5)))
    with pytest.raises(OSError, match="4 of 5"):
        list(cut)


def test_a_store_that_fails_at_once_is_an_error_that_is_told() -> None:
    def read(*_: int) -> Iterator[bytes]:
        raise StoreFailed("not now")
        yield b""

    assert opened(Answer(status=200, headers=(), body=StreamBody(read=read, start=0, length=4)))[0].status == 503


def test_a_client_that_leaves_lets_the_store_go() -> None:
    let_go = []

    def read(*_: int) -> Iterator[bytes]:
        try:
            yield b"ab"
            yield b"cd"
        finally:
            let_go.append(True)

    pieces = StreamPieces(StreamBody(read=read, start=0, length=4))
    pieces.close()
    assert let_go == [True]


def test_a_head_request_opens_nothing(tmp_path: Path) -> None:
    answer = Answer(status=200, headers=(), body=FileBody(path=tmp_path / "gone", start=0, length=9))
    assert opened(answer, head=True) == (answer, ())
