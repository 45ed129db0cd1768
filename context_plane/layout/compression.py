"""zstd frames with a content checksum and a bound on what they may decode to (RFC 8878).

A frame decoded here either equals what was encoded or raises: truncation, bit flips and bombs
included. Contexts are per thread: zstandard's compressor objects are not safe to share.

A fresh page of memory costs several times what a copy into one that is in use does, so a frame of hundreds of
megabytes is decoded from the pieces it came in, by small steps, into one array (numpy asks for huge pages).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import numpy as np
import zstandard

from context_plane.errors import Corrupt
from context_plane.store.base import Body
from context_plane.store.pieces import Pieces

LEVEL: Final = 3
"""zstd's default: higher levels cost build time and save under 5 % on these rows."""

HEADER_BYTES_MAX: Final = 18
"""Of a frame (RFC 8878, 3.1.1): magic number and frame header."""
STEP_BYTES: Final = 256 * 1024
"""What a step decodes stays in the processor's cache until it is copied."""
WRITE_BYTES: Final = 1024 * 1024
"""What a step decodes comes at once: each piece of its output would take Python's lock anew."""

_local = threading.local()


def compress(data: bytes) -> bytes:
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(
            level=LEVEL, write_checksum=True, write_content_size=True
        )
    result: bytes = compressor.compress(data)
    return result


def decompress(frame: Body, *, size_max: int) -> bytes:
    """Decode exactly one frame of at most `size_max` bytes. Raises `Corrupt(corrupt_object)`."""
    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        declared = zstandard.frame_content_size(frame)
        if declared < 0 or declared > size_max:
            raise Corrupt("corrupt_object", "a frame declares more than its limit", declared=declared, limit=size_max)
        if declared == 0:
            return _check_empty(frame)
        data: bytes = decompressor.decompress(frame, max_output_size=size_max, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt("corrupt_object", f"a zstd frame does not decode: {error}") from error
    return data


def decompress_pieces(frame: Pieces, *, size_max: int) -> memoryview:
    """As `decompress`, of a frame in pieces; read-only."""
    try:
        declared = zstandard.frame_content_size(frame.cut(0, HEADER_BYTES_MAX).joined())
        if len(frame) <= STEP_BYTES or not 0 < declared <= size_max:
            return memoryview(decompress(frame.joined(), size_max=size_max))
        worker = zstandard.ZstdDecompressor().decompressobj(write_size=WRITE_BYTES)
        found = np.empty(declared, np.uint8)
        filled = 0
        for step in _steps(frame):
            data = worker.decompress(step)
            if filled + len(data) > declared or worker.unused_data:
                raise Corrupt("corrupt_object", "a frame holds more than it declares", declared=declared)
            found[filled : filled + len(data)] = np.frombuffer(data, np.uint8)
            filled += len(data)
    except zstandard.ZstdError as error:
        raise Corrupt("corrupt_object", f"a zstd frame does not decode: {error}") from error
    if not worker.eof or filled != declared:
        raise Corrupt("corrupt_object", "a frame holds less than it declares", declared=declared, bytes=filled)
    found.flags.writeable = False
    return found.data


def _steps(frame: Pieces) -> Iterator[memoryview]:
    for piece in frame:
        for start in range(0, len(piece), STEP_BYTES):
            yield piece[start : start + STEP_BYTES]


def _check_empty(frame: Body) -> bytes:
    """zstandard's one-shot decoder believes a declared size of zero without looking; one flipped bit declares it."""
    worker = zstandard.ZstdDecompressor().decompressobj()
    data = worker.decompress(frame)
    if data or not worker.eof or worker.unused_data:
        raise Corrupt("corrupt_object", "a frame that declares to be empty is not")
    return b""
