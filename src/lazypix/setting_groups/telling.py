"""Who is told of what happened, and what others may have us reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from lazypix.outbound.rules import PORTS
from lazypix.setting_rules import check_allowed, check_purge_url, check_secret


class TellingSettings(BaseModel):
    """Who is told of what happened, and what others may have us reach."""

    callback_secret: Annotated[SecretStr | None, AfterValidator(check_secret)] = Field(
        None,
        description="Signs callbacks: 24 characters or more, or `whsec_` and base64. Two, separated by a space, "
        "while it is changed. Default: they are not signed.",
    )
    callback_method: Literal["POST", "GET"] = Field(
        "POST", description="`POST`: callbacks get JSON; `GET`: what is to be said stands in the query."
    )
    purge_url: Annotated[SecretStr | None, AfterValidator(check_purge_url)] = Field(
        None,
        description="Told (POST, JSON, signed as callbacks are) which addresses a CDN must not serve any more: after "
        "a deletion, an undeletion and a purge. It may lie anywhere.",
    )
    outbound_allow: Annotated[tuple[str, ...], AfterValidator(check_allowed)] = Field(
        (),
        description="Hosts, addresses and networks (`10.1.0.0/16`) that callbacks and downloads may reach although "
        "they are not public.",
    )
    outbound_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = Field(
        PORTS, description="Ports that callbacks and downloads may reach."
    )
