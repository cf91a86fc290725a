"""What a key says of itself."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from lazypix.credentials import SCOPES
from lazypix.http import Answer, envelope
from lazypix.server.access import Writer
from lazypix.server.endpoints import Endpoints


class KeyEndpoints(Endpoints):
    """`GET /keys/self`."""

    def routes(self) -> list[Route]:
        """Return the routes, for Starlette's router."""
        return [Route("/keys/self", self._identified(self.own), methods=["GET"])]

    async def own(self, _: Request, writer: Writer | None) -> Answer:
        """`GET /keys/self`: id, name, scopes, quotas and what is used of them, of the key that asks."""
        if writer is None or writer.record is None:  # no key is needed, or it stands in the settings
            return envelope(200, {"id": None, "name": None, "scopes": list(SCOPES)})
        record = await self._in_time(self._library.catalog.keys.get, writer.record.id)
        return envelope(200, record.facts())
