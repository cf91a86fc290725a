"""Which server the commands ask, instead of opening a library."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class AskingSettings(BaseModel):
    """Which server the commands ask, instead of opening a library."""

    server: str = Field(
        "",
        description="Where `lazypix add`, `get`, `info`, `list`, `delete`, `undelete`, `purge` and `url` find the "
        "library, such as `https://img.example`. Default: in the folder `data`, without a server.",
    )
    key: SecretStr | None = Field(None, description="API key for `server`.")
