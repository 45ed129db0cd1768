"""OpenAI Agents SDK: an agent that reads the plane before it answers.

OPENAI_API_KEY=… python examples/openai_agent.py "Why might acct-0042 leave?"
"""

from __future__ import annotations

import asyncio
import os
import sys

from agents import Agent, FunctionTool, Runner, function_tool

from context_plane.client import AsyncClient
from context_plane.errors import PlaneError

INSTRUCTIONS = "Answer from the context you read, and cite events as (customer, day, id)."


def tools(client: AsyncClient) -> list[FunctionTool]:
    """Two tools over one client. What cannot be read is told to the model."""

    @function_tool
    async def customer_context(entity: str) -> str:
        """What is known about one customer, in some 200 tokens; [n] names a source.

        Args:
            entity: The customer's id.
        """
        try:
            return (await client.context(entity)).content
        except PlaneError as error:
            return str(error)

    @function_tool
    async def search_events(query: str, entity: str | None = None) -> str:
        """Events that answer a question, best first: customer, day, id, text.

        Args:
            query: What to look for, in plain words.
            entity: Only this customer; leave it out to search all of them.
        """
        try:
            answer = await client.search(query, entities=None if entity is None else [entity], limit=5)
        except PlaneError as error:
            return str(error)
        return "\n".join(f"({hit.entity}, {hit.ts.date()}, {hit.id}) {hit.text}" for hit in answer.hits)

    return [customer_context, search_events]


def agent(client: AsyncClient) -> Agent[None]:
    return Agent(name="growth", instructions=INSTRUCTIONS, tools=[*tools(client)])


async def main() -> None:
    url = os.environ.get("CONTEXT_PLANE_URL", "http://127.0.0.1:8080")
    tenant, key = os.environ.get("CONTEXT_PLANE_TENANT", "demo"), os.environ.get("CONTEXT_PLANE_KEY")
    async with AsyncClient(url, tenant, key) as client:
        print((await Runner.run(agent(client), sys.argv[1])).final_output)


if __name__ == "__main__":
    asyncio.run(main())
