"""The format of task files, docs/task-file.md: read, written, and seen as the model it stands for.

Knows no engine; `breadcrumbs.tasks` makes the files.
"""

#: What the metadata of a task file have.
KEY = "breadcrumbs.task"
