"""Scores of models: processes, what each does, and what is not computed twice."""
