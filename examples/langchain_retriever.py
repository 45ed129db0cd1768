"""LangChain: the plane as a retriever of cited events, and a customer's context as a tool.

python examples/langchain_retriever.py "price too high"
"""

from __future__ import annotations

import os
import sys
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, tool
from pydantic import Field

from context_plane.client import Client, Hit
from context_plane.errors import PlaneError


class PlaneRetriever(BaseRetriever):
    """Documents are events, best first. `search`: more arguments of `Client.search`, such as `entities` or `where`."""

    client: Client
    search: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [document(hit) for hit in self.client.search(query, **self.search).hits]


def document(hit: Hit) -> Document:
    """The text, and where it stands: entity, day and id name the event, segment and line the stored bytes."""
    cited = {"segment": hit.citation.segment, "line": hit.citation.line, "digest": hit.citation.digest}
    named = {"entity": hit.entity, "ts": hit.ts.isoformat(), "source": hit.source, "kind": hit.kind}
    return Document(hit.text or "", id=hit.id, metadata={**named, "score": hit.score, **cited})


def context_tool(client: Client) -> BaseTool:
    """The bundle of one customer, as an agent's tool. What cannot be read is told to the model."""

    @tool
    def customer_context(entity: str) -> str:
        """What is known about one customer, in some 200 tokens; [n] names a source. `entity` is the customer's id."""
        try:
            return client.context(entity).content
        except PlaneError as error:
            return str(error)

    return customer_context


def main() -> None:
    url = os.environ.get("CONTEXT_PLANE_URL", "http://127.0.0.1:8080")
    tenant, key = os.environ.get("CONTEXT_PLANE_TENANT", "demo"), os.environ.get("CONTEXT_PLANE_KEY")
    with Client(url, tenant, key) as client:
        found = PlaneRetriever(client=client, search={"limit": 3}).invoke(sys.argv[1])
        for each in found:
            print(each.metadata["entity"], each.metadata["ts"], each.page_content, sep="\n  ")
        if found:
            print(context_tool(client).invoke({"entity": found[0].metadata["entity"]}))


if __name__ == "__main__":
    main()
