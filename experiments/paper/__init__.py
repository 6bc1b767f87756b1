"""Model Breadcrumbs, repeated: one module a figure, one command each.

python -m experiments.paper frontier --family FOLDER
python -m experiments.paper fig2 --family FOLDER --seeds 0 1 2
python -m experiments.paper fig2 --draw
"""
