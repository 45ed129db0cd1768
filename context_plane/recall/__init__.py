"""Recall: every read journey, from a request value to an answer value. No HTTP here."""
