"""Context Plane: a context store and context cache for AI agents, on object storage.

Importing this package does nothing. `context_plane.plane.open(settings)` gives a plane.
"""
