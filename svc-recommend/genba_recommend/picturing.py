"""Pictures of items become vectors: at once when they are sent, and later where svc-sop's encoder was away.

A process looks every half second for pictures that wait, claims a few, and has them embedded. Knows no HTTP but through the door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from genba_recommend import picture_store
from genba_recommend.picture_store import Claimed, Made
from genba_recommend.sop_door import MOST_BYTES, MOST_PICTURES, NoEncoder, SopDoor
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.problems import NotFound
from genba_shared.telemetry import get_logger

log = get_logger(__name__)
MOST_WAIT_S = 30.0  # between tries while there is no encoder
FOLDER = "recommend-pictures"


class Picturing:
    """One process's way from pictures to vectors. ``door`` None: pictures are kept and wait."""

    def __init__(self, database: Database, artifacts: Artifacts, door: SopDoor | None, *, poll_s: float) -> None:
        self._database, self._door, self._poll_s = database, door, poll_s
        self._artifacts = artifacts

    def store_of(self, tenant: str) -> Artifacts:
        """Where a tenant's pictures lie."""
        return self._artifacts.below(f"{FOLDER}/{tenant}")

    async def look_at(self, tenant: str, data: bytes) -> Made:
        """What the encoder makes of a picture, now. Raises: NoEncoder."""
        if self._door is None:
            raise NoEncoder("no_encoder")
        [made] = await self._door.embed(tenant, [data])
        return made

    async def keep_on(self) -> None:
        """Embed what waits, for as long as the process serves."""
        failures = 0
        while True:
            try:
                more = await self.round()
                failures = 0
            except NoEncoder:
                more, failures = False, failures + 1
            except Exception:
                more, failures = False, failures + 1
                log.exception("pictures_not_embedded")
            if not more:
                await asyncio.sleep(min(MOST_WAIT_S, self._poll_s * 2.0**failures) if failures else self._poll_s)

    async def round(self) -> bool:
        """Embed a few. Returns: whether there were any. Raises: NoEncoder."""
        if self._door is None:
            return False
        claimed = await asyncio.to_thread(self._claim)
        if not claimed:
            return False
        tenant = claimed[0].tenant
        pictures = await asyncio.to_thread(self._read, claimed)
        there = {each: data for each, data in pictures.items() if data is not None}
        try:
            answers = await self._door.embed(tenant, list(there.values())) if there else []
        except NoEncoder as why:
            await asyncio.to_thread(self._release, claimed, why.reason)
            raise
        made = dict(zip(there, answers, strict=True))
        lost = Made("", None, "The picture is not there any more.")
        done = await asyncio.to_thread(self._write, tenant, {each: made.get(each, lost) for each in claimed})
        log.info("pictures_embedded", **done)
        return True

    def _claim(self) -> list[Claimed]:
        with self._database.transaction() as session:
            return picture_store.claim(session, most=MOST_PICTURES, most_bytes=MOST_BYTES)

    def _read(self, claimed: Sequence[Claimed]) -> dict[Claimed, bytes | None]:
        return {each: self._bytes_of(each) for each in claimed}

    def _bytes_of(self, claimed: Claimed) -> bytes | None:
        try:
            with self.store_of(claimed.tenant).open(claimed.key) as file:
                return file.read()
        except NotFound:
            return None

    def _release(self, claimed: Sequence[Claimed], note: str) -> None:
        with self._database.transaction() as session:
            picture_store.release(session, claimed, note=note)

    def _write(self, tenant: str, made: dict[Claimed, Made]) -> dict[str, int]:
        with self._database.transaction() as session:
            return picture_store.embed(session, tenant, made)
