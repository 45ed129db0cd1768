"""The context cache: memory over local disk, both bounded by bytes, keyed by immutable object keys."""
