"""Live Torch modules: their weights by name, statistics of them, tasks switched in and out."""
