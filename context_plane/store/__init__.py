"""Object storage: one protocol (`base`), and what speaks it.

`open` makes a store from a URL, `objects` and `local` are the backends, `probe` refuses a store
whose creates are not exclusive, `counting`, `hedging` and `faults` wrap any store.
"""

from context_plane.store.base import ByteRange, ObjectInfo, Store
from context_plane.store.counting import CountingStore, Trace, trace
from context_plane.store.hedging import HedgingStore
from context_plane.store.open import StoreOptions, is_remote, open_store
from context_plane.store.probe import probe

__all__ = [
    "ByteRange",
    "CountingStore",
    "HedgingStore",
    "ObjectInfo",
    "Store",
    "StoreOptions",
    "Trace",
    "is_remote",
    "open_store",
    "probe",
    "trace",
]
