"""LangChain's MCP adapters, unmodified, in an environment of their own (tests/clients.lock): one call of a tool.

Reads ``{"url", "key", "tool", "arguments"}`` from standard input, and writes the tools' names and the result's text.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from langchain_mcp_adapters.client import MultiServerMCPClient


async def call(asked: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {asked['key']}"}
    client = MultiServerMCPClient({"braid": {"transport": "streamable_http", "url": asked["url"], "headers": headers}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    made = await tools[asked["tool"]].ainvoke(asked["arguments"])
    text = made if isinstance(made, str) else "".join(part["text"] for part in made)
    return {"tools": list(tools), "text": text}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(json.load(sys.stdin)))))
