"""Every error that lazypix raises, as one tree.

::

    LazypixError                     500  internal
    ├── BadRequest                   400  bad_request
    │   ├── BadTransform             400  bad_transform
    │   ├── BadIdent                 400  bad_ident
    │   ├── BadUpload                400  bad_upload
    │   ├── BadArchive               400  bad_archive
    │   └── AddressRefused           400  address_refused
    ├── Unauthorized                 401  unauthorized
    ├── Forbidden                    403  forbidden
    │   ├── BadSignature             403  bad_signature
    │   ├── LinkExpired              403  link_expired
    │   ├── TicketRefused            403  ticket_refused
    │   └── QuotaExceeded            403  quota_exceeded
    ├── NotFound                     404  not_found
    │   ├── UnknownImage             404  unknown_image
    │   ├── SourceMissing            404  source_missing
    │   ├── UnknownUpload            404  unknown_upload
    │   └── UploadGone               410  upload_gone
    ├── MethodNotAllowed             405  method_not_allowed
    ├── TooSlow                      408  too_slow
    ├── IdentTaken                   409  ident_taken
    ├── OffsetMismatch               409  offset_mismatch
    ├── VersionRefused               412  version_refused
    ├── TooLarge                     413  too_large
    ├── UnsupportedImage             415  unsupported_image
    ├── WrongMediaType               415  wrong_media_type
    ├── BrokenImage                  422  broken_image
    ├── RenderFailed                 422  render_failed
    ├── RendererLost                 422  renderer_lost
    │   └── RenderTimeout            422  render_timeout
    ├── Quarantined                  422  quarantined
    ├── TooManyRequests              429  too_many_requests
    ├── ChecksumMismatch             460  checksum_mismatch
    ├── Unreachable                  502  unreachable
    │   └── SourceFailed             502  source_failed
    ├── Busy                         503  busy
    ├── StoreFailed                  503  store_failed
    │   ├── OriginalDamaged          503  original_damaged
    │   ├── BlobMissing              503  blob_missing
    │   └── BlobExists               503  blob_exists
    ├── StoreFull                    507  store_full
    └── SettingsError                500  settings

The text of an error is public: it says what was wrong, names the offending token and what is accepted,
and never holds a path of the server or a secret.
"""

from __future__ import annotations

from typing import ClassVar


class LazypixError(Exception):
    """Something lazypix refuses or could not do; the message is public."""

    status: ClassVar[int] = 500
    """HTTP status code that a face answers with."""
    code: ClassVar[str] = "internal"
    """Stable name of the error, for programs."""
    retry_after_s: int | None = None
    """Seconds after which asking again makes sense, if it does."""


class BadRequest(LazypixError):
    """The request cannot be understood or must not be made."""

    status = 400
    code = "bad_request"


class BadTransform(BadRequest):
    """A size or another option is unknown, malformed or impossible."""

    code = "bad_transform"


class BadIdent(BadRequest):
    """An ident holds other characters than are allowed, or is too long."""

    code = "bad_ident"


class BadUpload(BadRequest):
    """An upload has no image, an empty one, or a malformed body."""

    code = "bad_upload"


class BadArchive(BadRequest):
    """The archive is malformed, ends early, or holds what an archive of images does not hold."""

    code = "bad_archive"


class AddressRefused(BadRequest):
    """A URL leads to an address that is not reached: one of a private network, or of this machine."""

    code = "address_refused"


class Unauthorized(LazypixError):
    """A write came without a valid API key."""

    status = 401
    code = "unauthorized"


class Forbidden(LazypixError):
    """The API key is not for this; or a write came from a page of another site, to a server without API keys."""

    status = 403
    code = "forbidden"


class BadSignature(Forbidden):
    """The address needs a signature and has none, or one that is wrong or does not cover what is asked for."""

    code = "bad_signature"


class LinkExpired(Forbidden):
    """The address was signed for some time, which is over."""

    code = "link_expired"


class TicketRefused(Forbidden):
    """An upload ticket has expired, or was not signed here as it is."""

    code = "ticket_refused"


class QuotaExceeded(Forbidden):
    """The API key has as many images, or bytes, as it may have."""

    code = "quota_exceeded"


class NotFound(LazypixError):
    """There is nothing at this address."""

    status = 404
    code = "not_found"


class UnknownImage(NotFound):
    """No image has this ident (or it was deleted)."""

    code = "unknown_image"


class SourceMissing(NotFound):
    """The server of a URL says that there is nothing (404), or nothing any more (410)."""

    code = "source_missing"


class UnknownUpload(NotFound):
    """No upload in pieces has this id (or it failed, was given up by its client, or was thrown away long ago)."""

    code = "unknown_upload"


class UploadGone(NotFound):
    """An upload in pieces was not gone on with for too long, and what had come of it is thrown away."""

    status = 410
    code = "upload_gone"


class MethodNotAllowed(LazypixError):
    """The address exists, but not for this HTTP method."""

    status = 405
    code = "method_not_allowed"


class TooSlow(LazypixError):
    """The client sent nothing for too long in the middle of its request."""

    status = 408
    code = "too_slow"


class IdentTaken(LazypixError):
    """The ident was given already, perhaps to an image that is deleted now; it is never given again."""

    status = 409
    code = "ident_taken"


class OffsetMismatch(LazypixError):
    """A piece of an upload does not begin where the pieces before it end, or another came first."""

    status = 409
    code = "offset_mismatch"


class VersionRefused(LazypixError):
    """The client speaks another version of the tus protocol."""

    status = 412
    code = "version_refused"


class TooLarge(LazypixError):
    """More bytes, pixels or frames than the limits allow."""

    status = 413
    code = "too_large"


class UnsupportedImage(LazypixError):
    """The bytes are no image, or of a format that cannot be read or written here."""

    status = 415
    code = "unsupported_image"


class WrongMediaType(LazypixError):
    """The body is not of the media type that this address takes."""

    status = 415
    code = "wrong_media_type"


class BrokenImage(LazypixError):
    """The bytes begin like an image, but cannot be decoded to the end."""

    status = 422
    code = "broken_image"


class RenderFailed(LazypixError):
    """The original is good, but this variant of it cannot be made."""

    status = 422
    code = "render_failed"


class RendererLost(LazypixError):
    """The renderer process died of this image (crash or memory limit)."""

    status = 422
    code = "renderer_lost"


class RenderTimeout(RendererLost):
    """The renderer was stopped because this image took longer than the deadline."""

    code = "render_timeout"


class Quarantined(LazypixError):
    """The image cost renderers their lives before and is no longer rendered."""

    status = 422
    code = "quarantined"


class TooManyRequests(LazypixError):
    """The API key has made as many requests in this minute as it may make."""

    status = 429
    code = "too_many_requests"

    def __init__(self, text: str, *, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class ChecksumMismatch(LazypixError):
    """A piece of an upload is not what its checksum says; it was thrown away. The status is the tus protocol's."""

    status = 460
    code = "checksum_mismatch"


class Unreachable(LazypixError):
    """A server that a URL names did not answer properly in time."""

    status = 502
    code = "unreachable"


class SourceFailed(Unreachable):
    """The server of a URL answered, but not with something that can be downloaded; its status is told."""

    code = "source_failed"


class Busy(LazypixError):
    """All places in the queue are taken."""

    status = 503
    code = "busy"
    retry_after_s = 1

    def __init__(self, text: str, *, retry_after_s: int = 1) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StoreFailed(LazypixError):
    """The store or the catalog could not do its work."""

    status = 503
    code = "store_failed"
    retry_after_s = 5


class OriginalDamaged(StoreFailed):
    """The stored original is not what was uploaded; it is not served until it is repaired."""

    code = "original_damaged"
    retry_after_s = 600


class BlobMissing(StoreFailed):
    """No blob is stored under this key."""

    code = "blob_missing"


class BlobExists(StoreFailed):
    """A blob is already stored under this key."""

    code = "blob_exists"


class StoreFull(LazypixError):
    """There is no space left for the blob."""

    status = 507
    code = "store_full"


class SettingsError(LazypixError):
    """One or more settings are wrong; the message lists every fault."""

    code = "settings"
