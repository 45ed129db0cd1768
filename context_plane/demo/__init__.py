"""The demonstration: a seeded export of invented customers, and an agent that reads their context."""
