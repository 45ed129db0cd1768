"""Dagster resources: the plane that assets work on, and what a run is about. Imported by assets only."""
