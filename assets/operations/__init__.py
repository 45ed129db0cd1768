"""Operations: what is done to a store beside building it, as jobs. `OPERATIONS` names them for `definitions.py`.

A run names tenants, counts and ids of requests; ids of entities never enter a run's configuration, logs or metadata.
Every default of the launchpad is safe to launch: what deletes or replaces is a dry run unless told otherwise, an
erasure takes only what a request was filed for, and an approval names its spec and days.
"""

from typing import Final

import dagster as dg

from assets.operations.approval import approve_bundles
from assets.operations.collection import collect_garbage
from assets.operations.erasure import erase_entities
from assets.operations.reembedding import reembed_tenants
from assets.operations.retirement import retire_old_days, retire_old_specs
from assets.operations.verification import verify_sample
from assets.operations.warming import warm_services

OPERATIONS: Final[list[dg.JobDefinition]] = [
    erase_entities,
    collect_garbage,
    retire_old_days,
    retire_old_specs,
    reembed_tenants,
    verify_sample,
    warm_services,
    approve_bundles,
]
