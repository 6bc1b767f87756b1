"""Learning from a few rows: numbers or small modules beside a merged model (docs/with-data.md).

heads     corrections behind a frozen merged model, for each task
blocks    the weights of one block after the other; corrections after every block
routing   which task a row is of, behind a frozen merged model
"""
