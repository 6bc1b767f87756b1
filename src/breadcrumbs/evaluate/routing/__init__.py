"""Routing: which task a row is of, told from features of a merged model, each row for itself.

logistic  the regression that tells tasks apart
router    the file of it, bound to the merged model, and what it sends rows to
experts   models and task files that rows are sent to

What learns it is `breadcrumbs.tune.learn.routing`, what scores with it `scoring.routed`.
"""
