"""`breadcrumbs store`: the commands that change no task, and the options of all."""
