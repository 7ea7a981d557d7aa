"""The composition root: what puts components together into processes, clusters and the ``fs3`` command.

This package may import everything and nobody imports it. A component's own package says what it does; here
stands only which settings a process reads, which components it is handed, and how processes are started on
one machine. ``main.py`` has the table of all commands.
"""

assert __name__ == "fs3.deploy", (
    f"import this package as fs3.deploy, not {__name__}: it would be loaded twice"
)
