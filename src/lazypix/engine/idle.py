"""No engine: for programs that look, list or delete, and start without loading libvips."""

from __future__ import annotations

from concurrent.futures import Future

from lazypix.plan import Limits, Plan, Probe


class IdleEngine:
    """Makes nothing; asking it to is a programmer's mistake."""

    @property
    def workers(self) -> int:
        return 1

    def inspect(self, path: str, limits: Limits) -> Future[Probe]:  # noqa: ARG002
        raise AssertionError(f"an idle engine was asked to inspect {path}")

    def render(self, path: str, plan: Plan) -> Future[bytes]:  # noqa: ARG002
        raise AssertionError(f"an idle engine was asked to render {path}")

    def close(self) -> None:
        pass
