"""A folder as a store: durable on one machine, readable by a person, nginx or rsync."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from lazypix.errors import BlobExists, BlobMissing, LazypixError, StoreFailed, StoreFull
from lazypix.stores import PIECE_BYTES, Blob, Capabilities, UploadAddress, check_key

_TEMPORARY = ".tmp"
_DELETED = ".deleted"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LocalStore:
    """Keeps each blob as the file `<root>/<key>`.

    A blob is written to a temporary file, flushed to the disk (fsync), linked or renamed into place, and its folder
    is flushed too. A store deletes an image by renaming its folder away first, so that it vanishes at once.

    `public_url` is where a web server shows the folder, for `url`.
    """

    def __init__(self, root: str | Path, *, public_url: str = "") -> None:
        self.root = Path(root).absolute()
        self._public_url = public_url.rstrip("/")
        self._temporary = self.root / _TEMPORARY
        self._deleted = self.root / _DELETED
        with _Translated("open", str(self.root)):
            make_folder(self._temporary)
            make_folder(self._deleted)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def create(self, key: str, source: bytes | Path) -> None:
        target = self._path(key)

        def link(finished: Path) -> None:
            try:
                os.link(finished, target)  # fails when the target exists, in one step
            except FileExistsError:
                raise BlobExists(f"There is already a blob under {key}") from None
            finished.unlink()

        self._place(key, source, link)

    def put(self, key: str, source: bytes | Path, *, durable: bool = True) -> None:
        target = self._path(key)
        self._place(key, source, lambda finished: _rename(finished, target), flush_folders=durable)

    def get(self, key: str) -> bytes:
        with _Translated("read", key):
            return self._path(key).read_bytes()

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        with _Translated("read", key), self._path(key).open("rb") as file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                piece = file.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def head(self, key: str) -> Blob:
        with _Translated("read", key):
            found = self._path(key).stat()
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError
            return _blob(key, found)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def url(self, key: str, *, expires_s: int | None) -> str | None:
        if not self._public_url or expires_s is not None:
            return None
        return f"{self._public_url}/{quote(check_key(key), safe='/,=')}"

    def upload_address(self, key: str, *, expires_s: int) -> UploadAddress | None:  # noqa: ARG002
        check_key(key)
        return None

    def list(self, prefix: str = "") -> Iterator[Blob]:
        start = self._path(prefix.rstrip("/")) if prefix else self.root
        yield from self._walk(start, prefix)

    def delete(self, key: str) -> bool:
        target = self._path(key)
        with _Translated("delete", key):
            try:
                target.unlink()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return False
            _flush_folder(target.parent)
            return True

    def delete_prefix(self, prefix: str) -> int:
        folder = self._path(prefix.rstrip("/"))
        doomed = self._deleted / _unique()
        with _Translated("delete", prefix):
            try:
                os.rename(f"{folder}/", doomed)  # noqa: PTH104  # the slash: a blob of this name is not meant
            except (FileNotFoundError, NotADirectoryError):
                return 0
            _flush_folder(folder.parent)
            count = sum(len(files) for _, _, files in os.walk(doomed))
            shutil.rmtree(doomed)
            return count

    def check(self) -> None:
        try:
            for folder in (self._temporary, self._deleted):
                os.scandir(folder).close()
        except OSError as error:
            raise StoreFailed(f"The store's folder cannot be read ({error.strerror})") from error

    def sweep(self, *, older_than_s: float) -> int:
        latest, removed = time.time_ns() - int(older_than_s * 1e9), 0
        with _Translated("sweep", str(self.root)):
            for leftover in (*self._temporary.iterdir(), *self._deleted.iterdir()):
                if _made_ns(leftover) <= latest:
                    with suppress(FileNotFoundError):  # finished meanwhile
                        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                        removed += 1
        return removed

    def close(self) -> None:
        pass

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _place(
        self, key: str, source: bytes | Path, into_place: Callable[[Path], None], *, flush_folders: bool = True
    ) -> None:
        """Make `source` a durable temporary file, then do `into_place`, then flush the folders up to the root.

        Without the last step a power cut may lose the name, but never leaves a name for half a file. All folders,
        and not only those made here: another thread that made one may not have flushed it yet.
        """
        folder = self._path(key).parent
        finished = self._temporary / _unique()
        with _Translated("write", key):
            try:
                _write_durably(finished, source)
                _made_where_folder_is_missing(folder, lambda: into_place(finished))
                while flush_folders:
                    _flush_folder(folder)
                    if folder == self.root:
                        break
                    folder = folder.parent
            except BaseException:
                with suppress(FileNotFoundError):
                    finished.unlink()
                raise

    def _walk(self, folder: Path, prefix: str) -> Iterator[Blob]:
        try:
            # Folders sort as if their name ended in "/", so that keys come out in order.
            entries = sorted(os.scandir(folder), key=lambda e: e.name + ("/" if e.is_dir() else ""))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StoreFailed(f"Could not list {prefix or 'the store'} ({error.strerror})") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                with suppress(FileNotFoundError):  # deleted since
                    yield _blob(prefix + entry.name, entry.stat())


class _Translated:
    """Turn the operating system's errors into ours, at the one boundary where they come in."""

    def __init__(self, doing: str, key: str) -> None:
        self._doing, self._key = doing, key

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, LazypixError):
            return
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            raise BlobMissing(f"There is no blob under {self._key}") from None
        if error.errno in _FULL:
            raise StoreFull(f"No space left to {self._doing} {self._key}") from error
        raise StoreFailed(f"Could not {self._doing} {self._key} ({error.strerror})") from error


def _rename(source: Path, target: Path) -> None:
    source.replace(target)


def _write_durably(path: Path, source: bytes | Path) -> None:
    if isinstance(source, bytes):
        with path.open("xb", buffering=0) as file:
            left = memoryview(source)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        return
    try:
        source.rename(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, path)  # from another file system
        source.unlink()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _made_where_folder_is_missing(folder: Path, act: Callable[[], None]) -> None:
    """Act, and make the folder when it is missing; a deletion at the same moment may take it away again."""
    for _ in range(10):
        try:
            act()
        except FileNotFoundError:
            make_folder(folder)
        else:
            return
    act()


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each one flushed into the folder that holds it; one that exists is fine."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    _flush_folder(folder.parent)


def _unique() -> str:
    """Return a name that tells when it was made: a renamed file's own time says nothing of that."""
    return f"{time.time_ns():016x}-{uuid.uuid4().hex}"


def _made_ns(path: Path) -> int:
    """Return when a temporary name was made, nanoseconds since 1970; 0 for one that is not ours."""
    try:
        return int(path.name.partition("-")[0], 16)
    except ValueError:
        return 0


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # deleted since; its own deletion is flushed by who did it
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _blob(key: str, found: os.stat_result) -> Blob:
    return Blob(key=key, size=found.st_size, modified=datetime.fromtimestamp(found.st_mtime, UTC))
