"""Scores that are kept: rows in a database, standard errors, tables of them."""
