"""The HTTP door: one message of the protocol in, its answer out, by the official SDK's streamable HTTP, stateless.

The SDK is asynchronous, the service has threads. A message is served by an event loop of its own in the thread of its
request: nothing is shared between calls, and a tool, which blocks, blocks only its own loop. Imported only where a
message arrives: the SDK takes half a second and 18 MB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from app import __version__
from app.mcp.fence import INSTRUCTIONS
from app.mcp.tools import TOOLS, Tool

Message = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """Text of a tool's result for the agent, or of its failure."""

    text: str
    is_error: bool = False


CallTool = Callable[[Tool, dict[str, Any]], ToolOutcome]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Answer of the door as it goes over the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def exchange(headers: Iterable[tuple[str, str]], body: bytes, call_tool: CallTool) -> HttpAnswer:
    """Answer one POST of the protocol.

    Args:
        headers: of the request.
        call_tool: runs a tool with its arguments; what it raises is raised here, and nothing of it is sent.
    """
    return asyncio.run(_exchange(headers, body, call_tool))


async def _exchange(headers: Iterable[tuple[str, str]], body: bytes, call_tool: CallTool) -> HttpAnswer:
    failed: list[Exception] = []

    async def run(_context: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            message = f"there is no tool {params.name[:100]!r}; the tools are {', '.join(TOOLS)}"
            raise MCPError(code=types.INVALID_PARAMS, message=message)
        try:
            made = call_tool(tool, params.arguments or {})
        except Exception as error:  # noqa: BLE001 - raised outside: the SDK would send its text to the caller
            failed.append(error)
            raise MCPError(code=types.INTERNAL_ERROR, message="Internal error") from None
        return types.CallToolResult(content=[types.TextContent(text=made.text)], is_error=made.is_error)

    server = Server(
        "braid", version=__version__, instructions=INSTRUCTIONS, on_list_tools=_list_tools, on_call_tool=run
    )
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
    wire = _Wire(body)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/mcp",
        "raw_path": b"/mcp",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }
    async with manager.run():
        await manager.handle_request(scope, wire.receive, wire.send)
    if failed:
        raise failed[0]
    return wire.answer()


class _Wire:
    """The two ends of an ASGI exchange whose request is complete, and whose caller waits for the answer."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._sent: list[Message] = []

    async def receive(self) -> Message:
        if self._body is None:
            await asyncio.Event().wait()  # nothing further comes
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        self._sent.append(message)

    def answer(self) -> HttpAnswer:
        start, *parts = self._sent
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
        return HttpAnswer(start["status"], headers, b"".join(part.get("body", b"") for part in parts))


async def _list_tools(
    _context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    return types.ListToolsResult(tools=_LISTED)


_LISTED = [
    types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.schema,
        annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    for tool in TOOLS.values()
]
