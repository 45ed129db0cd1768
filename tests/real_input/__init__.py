"""Published data sets through the whole plane. They skip, with the reason, where the data is not here."""
