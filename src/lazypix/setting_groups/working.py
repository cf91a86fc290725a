"""Who carries out the jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from lazypix.setting_rules import check_broker


class WorkingSettings(BaseModel):
    """Who carries out the jobs."""

    jobs: Literal["server", "celery", "none"] = Field(
        "server",
        description="Who carries out what is to be done in the background: `server`, the servers themselves; "
        "`celery`, Celery workers, which are told by `broker`; `none`, only processes that run `lazypix jobs run`.",
    )
    job_workers: int = Field(
        2, ge=1, le=64, description="Jobs of each lane carried out at once by one process that carries out jobs."
    )
    job_lease_s: float = Field(
        60.0,
        ge=1,
        description="Seconds after which a job is begun again whose process was killed.",
    )
    broker: Annotated[SecretStr | None, AfterValidator(check_broker)] = Field(
        None,
        description="Celery's broker: `redis://[:<password>@]<host>:<port>/<number>`, `rediss://…`, "
        "`amqp://<user>:<password>@<host>:<port>/<vhost>` or `amqps://…`.",
    )
    job_resend_s: float = Field(
        60.0,
        ge=1,
        description="Seconds after which Celery is told once more of a job that nobody has begun.",
    )
