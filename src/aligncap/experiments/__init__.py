"""Measurements and tables: what is reported is made here, by a command named beside it."""
