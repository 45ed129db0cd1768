"""The Dagster deployment: what is built, when, and what is checked. `definitions.py` puts it together.

Assets hold no domain logic: they decide which tenants a run is about, call the engine, and report.
"""
