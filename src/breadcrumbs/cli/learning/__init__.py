"""What `breadcrumbs learn --what` can be: a file each, and what all of them take."""
