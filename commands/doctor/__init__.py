"""`context-plane doctor`: `command` says in what order, `machine`, `storage` and `tenants` look, `finding`: a line."""
