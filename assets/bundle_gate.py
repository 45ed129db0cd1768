"""What a build of bundles may not do unseen: exceed its spec's budget, or change too much of what readers have.

Judged per tenant-day, as in `assets/gate.py`: what fails is withheld and named, every other tenant commits, and the
check fails. Counts alone are shown: the entities that differ are named in an object under the tenant.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from assets.partitions import DAILY
from assets.report import NAMED_MAX, TABLE_TENANTS_MAX
from context_plane.bundle.spec import Spec
from context_plane.bundle_changes import Replacement
from context_plane.catalog.manifest import BundleChanges

BUDGET: Final = "token_budgets_kept"
CHANGES: Final = "changes_approved"
BUDGET_RECOVERY: Final = (
    "Nothing of them was committed; readers keep the bundles they had. A materialization that packs more than it "
    "counts is a defect: mend it, or give the spec another budget under another name, then materialize the day again."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one tenant's bundles of a day. `replacement`: None of a first build, or of another spec. `waits`: readers keep
    what they had. `over_budget`: why nothing of the day was kept."""

    replacement: Replacement | None = None
    waits: bool = False
    over_budget: str = ""


def check_specs(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of one bundles asset."""
    told = {
        BUDGET: (
            "The text of every bundle, counted again before the commit, keeps the token budget of its spec. A "
            "tenant-day with one that does not is withheld; the others are committed; then this check fails."
        ),
        CHANGES: (
            "Bundles that replace bundles of the same spec change no more of them than "
            "CONTEXT_PLANE_BUNDLE_CHANGE_MAX, or are approved. Those of a tenant-day that change more wait, readers "
            "keep what they have, and this check fails."
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks; the version is pinned
        return [
            dg.AssetCheckSpec(name, asset=asset, blocking=True, partitions_def=DAILY, description=text)
            for name, text in told.items()
        ]


def check_results(spec: Spec, day: str, verdicts: Mapping[str, Verdict]) -> list[dg.AssetCheckResult]:
    """The verdicts of a day as those of both checks. Each counts what it judged: changes, where bundles replace others
    of the same spec. Pure."""
    replacing = sum(verdict.replacement is not None for verdict in verdicts.values())
    over = {tenant: verdict.over_budget for tenant, verdict in verdicts.items() if verdict.over_budget}
    waiting = {
        tenant: f"{share_told(verdict.replacement.changes)} would change"
        for tenant, verdict in verdicts.items()
        if verdict.waits and verdict.replacement is not None
    }
    budget = f"The budget of {spec.name} is {spec.budget_tokens} tokens. {BUDGET_RECOVERY}"
    return [
        _result(BUDGET, day, len(verdicts), over, "withheld", budget),
        _result(CHANGES, day, replacing, waiting, "waiting for an approval", recovery(spec.name, day)),
    ]


def recovery(spec: str, day: str) -> str:
    """What to do about bundles that wait. Pure."""
    range_ = f"--since {day} --until {day}"
    return (
        "Readers keep the bundles they had. See what differs: `context-plane approve --tenant TENANT` lists what "
        "waits, with --json by entity. "
        f"To let it through: `context-plane approve {spec} --tenant TENANT {range_} --expires DAY`, or the job "
        f"approve_bundles. To drop it: `context-plane reject {spec} --tenant TENANT {range_}`; a later build that "
        "changes less drops it too. Then materialize the bundles of the day, and this check passes."
    )


def share_told(changes: BundleChanges) -> str:
    """Such as `3 of 8 bundles (37.5 %)`. Pure."""
    before = changes.removed + changes.changed + changes.unchanged
    return f"{changes.removed + changes.changed} of {before} bundles ({changes.share:.1%})"


def metadata_of(verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Counts under stable names, and a table by tenant: those that wait first, then those that change most. Nothing
    where no bundles replaced others. Pure."""
    found = {tenant: v for tenant, v in verdicts.items() if v.replacement is not None}
    if not found:
        return {}
    changes = [v.replacement.changes for v in found.values() if v.replacement is not None]
    replaced = sum(each.removed + each.changed + each.unchanged for each in changes)
    touched = sum(each.removed + each.changed for each in changes)
    return {
        "bundles_added": sum(each.added for each in changes),
        "bundles_removed": sum(each.removed for each in changes),
        "bundles_changed": sum(each.changed for each in changes),
        "bundles_unchanged": sum(each.unchanged for each in changes),
        "bundles_changed_share": round(touched / replaced, 4) if replaced else 0.0,
        "bundles_waiting": sum(verdict.waits for verdict in found.values()),
        "citations_added": sum(each.citations_added for each in changes),
        "citations_removed": sum(each.citations_removed for each in changes),
        "bundle_changes": _table(found),
    }


def _table(found: Mapping[str, Verdict]) -> dg.TableMetadataValue:
    rows = [(tenant, v, v.replacement) for tenant, v in found.items() if v.replacement is not None]
    rows.sort(key=lambda row: (not row[1].waits, -row[2].changes.share, row[0]))
    records = [_record(tenant, verdict, replaced) for tenant, verdict, replaced in rows[:TABLE_TENANTS_MAX]]
    return dg.MetadataValue.table(records, schema=_SCHEMA)


def _record(tenant: str, verdict: Verdict, replaced: Replacement) -> dg.TableRecord:
    changes = replaced.changes
    return dg.TableRecord(
        {
            "tenant": tenant,
            "state": "waits" if verdict.waits else "committed",
            "share": round(changes.share, 4),
            "added": changes.added,
            "removed": changes.removed,
            "changed": changes.changed,
            "unchanged": changes.unchanged,
            "compared": changes.compared,
            "fields": ", ".join(f"{name} {count}" for name, count in changes.fields.items()),
            "tokens_before": changes.tokens_before,
            "tokens_after": changes.tokens_after,
            "citations_added": changes.citations_added,
            "citations_removed": changes.citations_removed,
            "table": replaced.table,
        }
    )


_SCHEMA: Final = dg.TableSchema(
    columns=[
        dg.TableColumn("tenant", "string"),
        dg.TableColumn("state", "string"),
        dg.TableColumn("share", "float", description="of the bundles that readers had: changed or removed"),
        dg.TableColumn("added", "int"),
        dg.TableColumn("removed", "int"),
        dg.TableColumn("changed", "int"),
        dg.TableColumn("unchanged", "int"),
        dg.TableColumn("compared", "int", description="changed bundles whose bytes were compared"),
        dg.TableColumn("fields", "string", description="section, and bundles in which it differs"),
        dg.TableColumn("tokens_before", "int"),
        dg.TableColumn("tokens_after", "int"),
        dg.TableColumn("citations_added", "int"),
        dg.TableColumn("citations_removed", "int"),
        dg.TableColumn("table", "string", description="object that names the entities that differ; kept for a day"),
    ]
)


def _result(name: str, day: str, judged: int, found: Mapping[str, str], what: str, text: str) -> dg.AssetCheckResult:
    """`found`: tenant -> why. `text`: what to do."""
    counts: dict[str, Any] = {"judged": judged, "withheld": len(found)}
    if not found:
        return dg.AssetCheckResult(passed=True, check_name=name, metadata=counts, description="nothing is withheld")
    named = "; ".join(f"{tenant} {day}: {why}" for tenant, why in sorted(found.items())[:NAMED_MAX])
    return dg.AssetCheckResult(
        passed=False,
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(found)} of {judged} tenant-days {what}, the others were committed. {named}. {text}",
        metadata={**counts, "recovery": text},
    )
