"""The shape of a bundle as it is served, for the OpenAPI document: every field with what it means and an example.

Bundles are made by `context_plane.bundle.materialize` and sent as the bytes that are stored; a test holds the two
together.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serving import examples


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BundleItemOut(_Part):
    """One statement. What it has beside text and citations is of its section's kind."""

    text: str = Field(description="as the prompt-ready text shows it", examples=["open urgent tickets: 1"])
    citations: list[int] = Field(
        description="the events behind it: places in the bundle's `citations`, from 1", examples=[[1]]
    )
    name: str | None = Field(
        default=None, description="of the attribute, metric or signal", examples=["open_urgent_ticket"]
    )
    value: str | bool | int | float | list[str] | None = Field(
        default=None, description="profile: of the attribute", examples=["Growth"]
    )
    agg: Literal["count", "sum", "mean", "last", "delta", "trend"] | None = Field(
        default=None, description="metrics: how it was counted", examples=["sum"]
    )
    values: dict[str, int | float] | None = Field(
        default=None,
        description="metrics: by window in days, or `all` of the look-back",
        examples=[{"7d": 1834, "30d": 5790}],
    )
    severity: Literal["info", "warning", "critical"] | None = Field(
        default=None, description="signals: as the spec says", examples=["critical"]
    )
    kind: str | None = Field(default=None, description="evidence and recent: of the event", examples=["ticket"])
    chars: tuple[int, int] | None = Field(
        default=None,
        description="evidence: first character, and the one after the last, of the event's text that it stands for",
        examples=[[0, 30]],
    )


class BundleSectionOut(_Part):
    name: str = Field(description="as the spec names it; `query`: what was asked for", examples=["signals"])
    kind: Literal["profile", "metrics", "signals", "evidence", "recent"] = Field(
        description="what its items are", examples=["signals"]
    )
    title: str = Field(description="as the prompt-ready text shows it", examples=["Signals"])
    items: list[BundleItemOut] = Field(description="in the order shown", examples=[[examples.ITEM]])
    tokens: int = Field(description="of its text", examples=[examples.SECTION["tokens"]])


class BundleCitationOut(_Part):
    """An event by its identity and content. `GET …/why/{bundle_digest}` tells where it is stored."""

    day: str = Field(description="its UTC day", examples=["2026-03-04"])
    id: str = Field(description="the event's id", examples=["zd-8812"])
    digest: str = Field(description="the first 32 hex digits of the event's SHA-256", examples=[examples.EVENT_DIGEST])


class BundleOut(_Part):
    """A bundle: what is known of one entity under a spec, as of a day. Canonical JSON: same inputs, same bytes."""

    format: Literal[1] = Field(description="version of this form", examples=[1])
    spec: str = Field(description="its spec", examples=["customer_context_v0"])
    spec_fingerprint: str = Field(
        description="of the spec's content, the model and the analyzer", examples=["6b5e1d9b6f3f"]
    )
    entity: str = Field(description="whom it is about", examples=["acct-0042"])
    as_of: str = Field(description="the UTC day at whose end it stands", examples=["2026-03-04"])
    budget_tokens: int = Field(description="what its text may hold", examples=[200])
    tokens: int = Field(description="what its text holds", examples=[examples.BUNDLE["tokens"]])
    sections: list[BundleSectionOut] = Field(description="in the order shown", examples=[[examples.SECTION]])
    signals: dict[str, int | float] = Field(
        description="those that fired -> their weights", examples=[{"open_urgent_ticket": 3}]
    )
    citations: list[BundleCitationOut] = Field(
        description="what `[1]`, `[2]` … of texts stand for", examples=[[examples.BUNDLE_CITATION]]
    )
    query: str | None = Field(
        default=None, description="on demand: names the question it answers", examples=["0c6a2d9a1c7f"]
    )
