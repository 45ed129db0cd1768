"""What a run is about beyond its day: which tenants, and whether unchanged days are built again."""

from __future__ import annotations

import dagster as dg
from pydantic import Field


class BuildScope(dg.ConfigurableResource[None]):
    """Defaults fit a person's materialization or backfill: every tenant, and built days are built anew.

    Automation sets `only_dirty`: a tenant whose day has no uncovered writes is left alone.
    """

    tenants: list[str] = Field(default=[], description="names of tenants; empty: all")
    only_dirty: bool = Field(default=False, description="leave tenant-days alone that are built and unchanged")
