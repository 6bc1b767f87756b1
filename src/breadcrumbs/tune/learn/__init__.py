"""Learning from a few rows: numbers or small modules beside a merged model (docs/with-data.md).

heads     corrections behind a frozen merged model, for each task
"""
