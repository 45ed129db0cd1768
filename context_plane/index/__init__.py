"""Indexes over one day of one tenant, and the scorers over them."""
