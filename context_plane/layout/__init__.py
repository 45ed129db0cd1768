"""How bytes lie in the store: keys, packs, segments, log batches. Pure."""
