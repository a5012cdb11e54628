"""svc-sop's encoder over HTTP: pictures go in, vectors come out, under a principal that this service signs.

At an address (``GENBA_RECOMMEND_SOP_URL``), or in embedded mode at the application in this process, which ``app.state.sop_app`` names.
Whatever goes wrong is ``NoEncoder`` with its reason: pictures wait. Knows no database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import httpx
import numpy as np

from genba_recommend.picture_store import Made
from genba_shared.principal import PRINCIPAL_HEADER, Clearance, Principal, sign
from genba_shared.telemetry import get_logger
from genba_shared.trust import trust_of

log = get_logger(__name__)

Reason = Literal["no_encoder", "encoder_unreachable", "encoder_refused"]
MOST_PICTURES: Final = 32
MOST_BYTES: Final = 48 << 20
MOST_DIM: Final = 2048  # of an item's embedding
TIMEOUT_S: Final = 60.0


class NoEncoder(Exception):
    """There is no vector at the moment, for this reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class SopDoor:
    """``/v1/sop/embed``."""

    def __init__(self, client: httpx.AsyncClient, secret: bytes) -> None:
        self._client, self._secret = client, secret

    async def embed(self, tenant: str, pictures: Sequence[bytes]) -> list[Made]:
        """What the encoder makes of each. Raises: NoEncoder."""
        files = [("pictures", (f"{at}", data, "application/octet-stream")) for at, data in enumerate(pictures)]
        who = Principal("svc-recommend", (), frozenset({"sop:read"}), Clearance.INTERNAL, tenant=tenant)
        try:
            answer = await self._client.post(
                "/v1/sop/embed", files=files, headers={PRINCIPAL_HEADER: sign(who, self._secret)}
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            log.warning("picture_not_embedded", reason="encoder_unreachable", error=type(error).__name__)
            raise NoEncoder("encoder_unreachable") from error
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            return _none_readable(answer, len(pictures))
        if answer.status_code != httpx.codes.OK:
            unwell = (
                answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
                or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
            )
            reason: Reason = "encoder_unreachable" if unwell else "encoder_refused"
            log.warning("picture_not_embedded", reason=reason, status=answer.status_code)
            raise NoEncoder(reason)
        return _read(answer, len(pictures))

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()


def _none_readable(answer: httpx.Response, count: int) -> list[Made]:
    try:
        said = [str(each["message"]) for each in answer.json()["errors"]]
    except (ValueError, LookupError, TypeError) as error:
        raise NoEncoder("encoder_refused") from error
    if len(said) != count:
        raise NoEncoder("encoder_refused")
    return [Made("", None, why) for why in said]


def _read(answer: httpx.Response, count: int) -> list[Made]:
    try:
        said = answer.json()
        encoder, rows = str(said["encoder"])[:200], said["pictures"]
        made = [_made(encoder, row) for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        raise NoEncoder("encoder_refused") from error
    if len(made) != count:
        raise NoEncoder("encoder_refused")
    return made


def _made(encoder: str, row: dict[str, Any]) -> Made:
    if row["embedding"] is None:
        return Made(encoder, None, str(row["error"]))
    vector = np.array(row["embedding"], np.float32)
    if vector.ndim != 1 or not 1 <= len(vector) <= MOST_DIM or not np.isfinite(vector).all():
        raise ValueError("No vector that an item may have.")
    return Made(encoder, vector)


def open_door(url: str | None, app: Callable[..., Any] | None, secret: Callable[[], bytes]) -> SopDoor | None:
    """The door at an address, or to an application in this process; None where there is neither."""
    if url is None and app is None:
        return None
    if url is not None:
        client = httpx.AsyncClient(
            base_url=url.rstrip("/"), timeout=TIMEOUT_S, verify=trust_of(url), trust_env=False, follow_redirects=False
        )
    else:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
        client = httpx.AsyncClient(base_url="http://sop", timeout=TIMEOUT_S, transport=transport)
    return SopDoor(client, secret())
