"""Bundles: specs, tokens, materialization, packs."""
