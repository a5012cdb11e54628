"""What svc-sem's routes ask FastAPI for: the right to do something, and which page of a list."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from genba_shared.dependencies import require
from genba_shared.principal import Principal
from genba_shared.wire_records import RecordId

Reader = Annotated[Principal, require("sem:read")]
Writer = Annotated[Principal, require("sem:write")]
Reviewer = Annotated[Principal, require("sem:review")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[RecordId | None, Query(description="next_cursor of the page before")]
