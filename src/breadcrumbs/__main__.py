"""The command line as ``python -m breadcrumbs``, for where no script is on the path."""

from breadcrumbs.cli.group import main

if __name__ == "__main__":
    main()
