"""Who may ask for which sizes, and how links are signed."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from lazypix.addresses import EXPIRY_STEP_S
from lazypix.gate import Mode
from lazypix.setting_rules import check_presets, check_ring


class LinkingSettings(BaseModel):
    """Who may ask for which sizes, and how links are signed."""

    urls: Mode | None = Field(
        None,
        description="Who may ask for sizes: `open`, everybody for any; `signed`, who has a signed link; `presets`, "
        "everybody for those, and who has a signed link. To be chosen before listening beyond loopback. Default: "
        "everybody for any.",
    )
    url_keys: Annotated[tuple[SecretStr, ...], AfterValidator(check_ring)] = Field(
        (),
        description="Keys of signed links, each `<id>:<secret>` as `lazypix url-key` prints it. The first one signs, "
        "all are accepted: put a new one first, and take the old one off when its links may break.",
    )
    presets: Annotated[dict[str, str], AfterValidator(check_presets)] = Field(
        {},
        description='Transforms by name: with `thumb = "200x200,fit=cover"` in a table `[presets]` that is what '
        "`/image/@thumb/<ident>.webp` means. In the environment a JSON object.",
    )
    url_expiry_step_s: int = Field(
        EXPIRY_STEP_S,
        ge=1,
        description="Seconds that the expiry of links is rounded up to, so that pages have the same links for so "
        "long; never more than the time that was asked for.",
    )
