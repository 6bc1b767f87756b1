"""What `breadcrumbs learn` does besides corrections: a file each."""
