"""A recipe in, the recipe with better numbers out: by scores on held-out rows."""
