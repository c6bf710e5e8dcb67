"""The stdio door: the tools of a running service for an agent on this machine, message by message.

It has no tools of its own: it asks the service's ``/mcp``, so that tools, rights, limits and audit log are the same.
Each message has a connection of its own to the service, which may start later than the agent, and be restarted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp_types.version import LATEST_MODERN_VERSION

from app import __version__
from app.addresses import mask_passwords
from app.mcp.fence import INSTRUCTIONS

_TIMEOUT_S = 120.0
"""As for other commands that ask a service: answers of a language model take their time."""
Result = TypeVar("Result")


def serve(url: str, key: str | None) -> None:
    """Serve the agent on standard input and output, until it closes them.

    Args:
        url: the service.
        key: key or token of the caller.
    """
    asyncio.run(_serve(url, key))


async def _serve(url: str, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT_S, trust_env=False) as http:
        proxy = _Proxy(url, http)
        server: Server[Any] = Server(
            "braid",
            version=__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=proxy.list_tools,
            on_call_tool=proxy.call_tool,
        )
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


@dataclass(frozen=True, slots=True)
class _Proxy:
    """Passes messages on to the service."""

    url: str
    http: httpx2.AsyncClient

    async def list_tools(
        self, _context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        cursor = params.cursor if params is not None else None
        found = await self._ask(lambda service: service.list_tools(cursor=cursor))
        return types.ListToolsResult(tools=found.tools, next_cursor=found.next_cursor)

    async def call_tool(
        self, _context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        try:
            made = await self._ask(lambda service: service.call_tool(params.name, params.arguments))
        except MCPError as error:  # a limit, a revoked key, a service that is away: the agent can tell its user
            return types.CallToolResult(content=[types.TextContent(text=error.error.message)], is_error=True)
        return types.CallToolResult(content=made.content, is_error=made.is_error)

    async def _ask(self, ask: Callable[[Client], Awaitable[Result]]) -> Result:
        """Return the service's result. Raises MCPError, also if the service does not answer."""
        transport = streamable_http_client(f"{self.url.rstrip('/')}/mcp", http_client=self.http)
        try:
            async with Client(transport, mode=LATEST_MODERN_VERSION) as service:
                return await ask(service)
        except ExceptionGroup as group:
            error = _first(group)
            if isinstance(error, MCPError):
                raise error from group
            if isinstance(error, httpx2.HTTPError):
                problem = f"no answer from {mask_passwords(self.url)} ({type(error).__name__})"
                message = f"{problem}; start `braid up`, or pass --url"
                raise MCPError(code=types.INTERNAL_ERROR, message=message) from group
            raise


def _first(group: BaseException) -> BaseException:
    """Return the first error in nested groups: task groups of the SDK wrap what fails in them."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
