"""Who may write."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from lazypix.setting_rules import check_api_keys, check_ring, ring_of
from lazypix.signing.links import KeyRing


class AccessSettings(BaseModel):
    """Who may write."""

    base_url: str = Field(
        "",
        description="Put before the URLs that are given out, such as `https://img.example`. "
        "Web pages of this address may write without a key.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], AfterValidator(check_api_keys)] = Field(
        (),
        description="Keys for writes, of 16 characters or more, sent as `Authorization: Bearer <key>`. "
        "They may do everything; keys with scopes and quotas are made by `lazypix keys add`. "
        "None of either: writes need no key, and are refused to web pages other than `base_url`'s.",
    )
    ticket_keys: Annotated[tuple[SecretStr, ...], AfterValidator(check_ring)] = Field(
        (),
        description="Sign upload tickets: `<id>:<secret>`, as `lazypix url-key` makes them. The first one signs, all "
        "of them verify. None: there are no tickets.",
    )
    keys_required: bool = Field(
        False,
        description="Writes need a key although `api_keys` has none: one that `lazypix keys add` made. "
        "Once one was made there, they do in any case.",
    )

    @property
    def writes_need_keys(self) -> bool:
        """Whether the settings say by themselves that nobody may write without a key."""
        return bool(self.api_keys) or self.keys_required

    @property
    def ticket_ring(self) -> KeyRing:
        """What signs upload tickets."""
        return ring_of(self.ticket_keys)
