"""Where images are kept, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from lazypix.replica_settings import ReplicaSettings
from lazypix.setting_rules import check_prefix


class KeepingSettings(BaseModel):
    """Where images are kept, and for how long."""

    data: Path = Field(
        Path("data"),
        description="Folder of this machine: locks, uploads on their way, and unless `store` and `catalog` say "
        "otherwise originals, variants and the catalog.",
    )
    store: str = Field(
        "",
        description="Where originals and variants are kept: `file:///<folder>`, `s3://<bucket>/<prefix>`, "
        "`az://<container>/<prefix>`, `beansdb://<host>:<port>,…`. Default: the folder `images` in `data`.",
    )
    store_access_key: SecretStr | None = Field(
        None, description="Access key (Azure: account) for `store`. Default: what the service's own variables say."
    )
    store_secret_key: SecretStr | None = Field(None, description="Secret key for `store`.")
    catalog: SecretStr | None = Field(
        None,
        description="Database of the catalog: `postgresql://<user>:<password>@<host>/<database>` or "
        "`sqlite:///<path>`. Default: `catalog.sqlite` in `data`.",
    )
    replica: str = Field(
        "",
        description="A second store that receives everything, under the library's own keys: short for one of "
        "`replicas` that is called `replica`. `lazypix copy` fills it with what was there before.",
    )
    replica_access_key: SecretStr | None = Field(None, description="As `store_access_key`, for `replica`.")
    replica_secret_key: SecretStr | None = Field(None, description="As `store_secret_key`, for `replica`.")
    replicas: tuple[ReplicaSettings, ...] = Field(
        (),
        description="Stores that receive copies, each a table `[[replicas]]` with `name`, `store`, `access_key`, "
        "`secret_key`, `what` (`originals`, `named` sizes too, `all`), `profile` (`bos`, `kodo`), `layout` "
        "(`lazypix`, `imageserver`) or templates `original` and `variant`. In the environment a "
        "JSON array. Default: none.",
    )
    sidecars: bool = Field(
        False,
        description="Store filename and metadata beside each original too, so that `lazypix reindex` can rebuild the "
        "catalog whole from the store alone. Whoever can read the store can read them.",
    )
    scrub_rate: int = Field(
        0,
        ge=0,
        description="Bytes a second for verifying originals again in the background, by one process of all; 0: "
        "`lazypix scrub` does.",
    )
    scrub_days: float = Field(30.0, gt=0, description="Days after which an original is verified again.")
    undelete_s: float = Field(
        0.0, ge=0, description="Seconds for which a deleted image can be had back; 0: it is removed at once."
    )
    max_variants: int = Field(
        500, ge=0, description="Variants kept of one image, the least used go first; 0: as many as are asked for."
    )
    max_variant_bytes: int = Field(
        0, ge=0, description="Bytes of all variants together, the least used go first; 0: no bound."
    )
    key_prefix: Annotated[str, AfterValidator(check_prefix)] = Field(
        "", description="Put before every key in the store, such as `img/`."
    )
    key_shard: int = Field(
        0, ge=0, le=4, description="How many of an ident's last characters make a folder of their own; 0: none."
    )
