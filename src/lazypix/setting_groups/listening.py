"""What the server listens on, how it receives uploads, and how it ends."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

_MIB = 1024 * 1024


class ListeningSettings(BaseModel):
    """What the server listens on, how it receives uploads, and how it ends."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; beyond loopback it needs `api_keys` and `urls`."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(
        1, ge=1, le=64, description="Server processes; one answers tens of thousands of hits a second."
    )
    access_log: bool = Field(False, description="Write a line for every request.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines to log; `debug` has one for every render."
    )
    drain_s: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="Seconds for finishing what is under way after SIGTERM; what is left then is cut.",
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds before that for which `/readyz` is 503 already and new requests are still answered, so "
        "that load balancers notice.",
    )
    upload_buffer_bytes: int = Field(_MIB, ge=4096, description="Memory for one upload while it streams to disk.")
    upload_idle_s: float = Field(30.0, gt=0, description="Seconds an upload may stand still; then 408.")
    upload_deadline_s: float = Field(300.0, gt=0, description="Seconds for receiving one upload; then 408.")
    upload_keep_s: float = Field(
        86_400.0,
        gt=0,
        description="Seconds for which an upload that comes in pieces (`/files/`) is kept after its last piece.",
    )
    uploads: int = Field(
        16, ge=1, description="Uploads received at once; others wait up to `request_deadline_s`, then get 503."
    )
