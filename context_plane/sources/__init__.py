"""Declarative mappings from exports to events."""
