"""Object storage: one contract, several backends."""
