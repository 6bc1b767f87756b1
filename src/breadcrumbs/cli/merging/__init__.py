"""What `breadcrumbs merge` does besides merging models: recipes of arguments, adapters, several
merges in one file, and uploads."""
