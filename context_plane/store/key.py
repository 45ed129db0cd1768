"""What a key may be, and in which order keys are listed. Pure.

A key is 1-1024 printable ASCII characters without backslash, `/`-separated, no segment empty, `.` or
`..`, none longer than 255 bytes (a file name). The first segment is never `.tmp`: the local store
keeps unfinished writes there. A key is never also the folder of another key.

Listing order is ascending key bytes. Some servers (SeaweedFS) walk folders instead, so that `a/x`
comes before `a-b` although `-` sorts before `/`: *tree order*, which is the order of keys in which
`/` sorts before everything. `listing_offset` and `ByteOrder` make byte order from either.
"""

from __future__ import annotations

import re
from typing import Final

from context_plane.errors import Invalid
from context_plane.store.base import ObjectInfo

KEY_BYTES_MAX: Final = 1024
"""S3's limit on a key; the root prefix of a bucket counts too, so stay far below it."""
SEGMENT_BYTES_MAX: Final = 255
"""The longest file name of the common file systems."""
TEMPORARY_FOLDER: Final = ".tmp"

_SEGMENT = re.compile(r"[ -.0-\[\]-~]+")
_SEGMENT_OF_KEY: Final = rf"(?!\.{{1,2}}(?:/|\Z))[ -.0-\[\]-~]{{1,{SEGMENT_BYTES_MAX}}}"
_KEY = re.compile(rf"(?!{re.escape(TEMPORARY_FOLDER)}(?:/|\Z)){_SEGMENT_OF_KEY}(?:/{_SEGMENT_OF_KEY})*+")
"""All of a key in one pass: half a microsecond for each request."""


def check_key(key: str) -> str:
    """The key itself, or `Invalid(object_key_invalid)`."""
    if len(key) > KEY_BYTES_MAX or not _KEY.fullmatch(key):
        raise Invalid("object_key_invalid", "not an object key", key=key[:200])
    return key


def check_prefix(prefix: str) -> str:
    """A string some key may start with, or `Invalid(object_key_invalid)`. Its last segment may be partial."""
    folder, _, stem = prefix.rpartition("/")
    named = (folder == "" and not prefix.startswith("/")) or all(map(_is_segment, folder.split("/")))
    if len(prefix) > KEY_BYTES_MAX or not named or (stem and not _SEGMENT.fullmatch(stem)):
        raise Invalid("object_key_invalid", "not a prefix of any object key", prefix=prefix[:200])
    return prefix


def _is_segment(segment: str) -> bool:
    return segment not in {".", ".."} and len(segment) <= SEGMENT_BYTES_MAX and bool(_SEGMENT.fullmatch(segment))


def tree_order(key: str) -> str:
    """Sort key of tree order."""
    return key.replace("/", "\0")


def is_past(key: str, prefix: str) -> bool:
    """No key that starts with `prefix` follows `key`, in byte order and in tree order."""
    return not key.startswith(prefix) and key > prefix and tree_order(key) > tree_order(prefix)


def listing_offset(prefix: str, start_after: str) -> str | None:
    """Where a server may start, exclusively, so that it skips no key wanted, whichever its order.

    Wanted are the keys that start with `prefix` and are greater than `start_after`. None: start at the
    beginning of the prefix's folder. The offset lies just before a text that splits the keys alike in
    both orders; just before, because a server in tree order skips the folder an offset names.
    """
    folder = prefix.rfind("/") + 1
    bounds = [_bound(prefix, folder)]
    if start_after.startswith(prefix):
        bounds.append(_bound(start_after, folder))
    bound = max(bounds, key=tree_order)
    return _just_before(bound) if len(bound) > folder else None


def _bound(text: str, start: int) -> str:
    """The text up to the first character at or after `start` that sorts before `/`: alike in both orders."""
    for position in range(start, len(text)):
        if text[position] < "/":
            return text[:position].rstrip("/")
    return text.rstrip("/")


def _just_before(text: str) -> str:
    """A path less than `text` and whatever extends it, in both orders, with little in between."""
    match text[-1]:
        case "0":  # the character before is `/`
            before = "."
        case "]":  # the character before is a backslash
            before = "["
        case last:
            before = chr(ord(last) - 1)
    return f"{text[:-1]}{before}~"


class ByteOrder:
    """Turns a stream in tree order (or byte order) into byte order, holding back as little as it can.

    After `a/...` a tree-ordered stream may still bring `a-b`, which comes first: the objects below one
    top folder of the listing are held until the stream has left every name that starts with the
    folder's and goes on with a character below `/`. Files directly in the listed folder pass at once.
    """

    def __init__(self, folder_length: int) -> None:
        self._folder_length = folder_length
        self._held: list[ObjectInfo] = []
        self._top = ""

    def push(self, info: ObjectInfo) -> list[ObjectInfo]:
        """Takes the stream's next object; returns those that are now safe to emit, ascending."""
        key, top = info.key, self._top
        if self._held and key.startswith(top) and key[len(top) : len(top) + 1] <= "/":
            self._held.append(info)
            return []
        ready = self.drain()
        slash = key.find("/", self._folder_length)
        if slash < 0:
            ready.append(info)
        else:
            self._held, self._top = [info], key[:slash]
        return ready

    def drain(self) -> list[ObjectInfo]:
        """What is still held, ascending; the stream has ended or moved on."""
        held, self._held = self._held, []
        return sorted(held, key=lambda info: info.key)
