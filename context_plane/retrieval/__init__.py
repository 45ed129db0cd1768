"""Reading: filters, plans, caches, ranking."""
