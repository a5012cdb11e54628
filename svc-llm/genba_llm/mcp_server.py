"""Triage, think and search as tools of the Model Context Protocol, with its official SDK, behind the same keys and the same gate.

Stateless streamable HTTP: every call carries its key through the gateway, so there is no session to steal. The tools call what
the routes call; nothing is decided here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from genba_llm import routes_gate, routes_office
from genba_llm.schemas import DecisionOut, SearchIn, SearchOut, ThinkIn, ThinkOut, TriageIn
from genba_llm.service import Llm
from genba_llm.verdict import Action, Domain
from genba_shared.principal import Principal
from genba_shared.problems import Problem, ScopeMissing

T = TypeVar("T")
SCOPE = "llm:write"
Asking = Context[Any, Any]


@contextlib.asynccontextmanager
async def serving(llm: Llm) -> AsyncIterator[ASGIApp]:
    """The ASGI application that answers with the tools, while the block runs."""
    server = _Tools(llm).server()
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # each request proves its key
    server.streamable_http_app(stateless_http=True, json_response=True, transport_security=security)
    async with server.session_manager.run():
        yield server.session_manager.handle_request


class _Tools:
    """What a caller may call."""

    def __init__(self, llm: Llm) -> None:
        self._llm = llm

    def server(self) -> MCPServer[Any]:
        """The tools by name."""
        server: MCPServer[Any] = MCPServer(
            "genba-llm",
            instructions="Answers what may be answered, from documents that you may see; every decision is on record.",
        )

        @server.tool()
        async def triage(text: str, ctx: Asking, action: Action = "ask", domain: Domain | None = None) -> DecisionOut:
            """Decide whether a text may be answered: ALLOW, ESCALATE, DENY or REFUSE."""
            body = self._checked(lambda: TriageIn(text=text, action=action, domain=domain))
            return await self._as(ctx, lambda llm, who: routes_gate.triage(body, llm, who))

        @server.tool()
        async def think(text: str, ctx: Asking, domain: Domain | None = None) -> ThinkOut:
            """Answer a question with hidden thinking; only the final text comes back."""
            body = self._checked(lambda: ThinkIn(text=text, domain=domain))
            return await self._as(ctx, lambda llm, who: routes_gate.think(body, llm, who))

        @server.tool()
        async def search(query: str, ctx: Asking, limit: int = 5) -> SearchOut:
            """Find passages of the company's documents that you may see."""
            body = self._checked(lambda: SearchIn(query=query, limit=limit))
            return await self._as(ctx, lambda llm, who: routes_office.search_documents(body, llm, who))

        return server

    @staticmethod
    def _checked(make: Callable[[], T]) -> T:
        try:
            return make()
        except ValueError as error:
            raise ToolError("The arguments do not validate.") from error

    async def _as(self, ctx: Asking, work: Callable[[Llm, Principal], T]) -> T:
        """Do it as the caller, off the loop; a problem is what the tool says."""
        principal = getattr(getattr(ctx.request_context.request, "state", None), "principal", None)
        if not isinstance(principal, Principal):
            raise ToolError("This call carries no principal: it did not come through the gateway.")
        try:
            if not principal.allows(SCOPE):
                raise ScopeMissing(f"This needs the scope {SCOPE}.", scope=SCOPE)
            return await run_in_threadpool(work, self._llm, principal)
        except Problem as problem:
            raise ToolError(f"{problem.status} {problem.code}: {problem.detail}") from problem
