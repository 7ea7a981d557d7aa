"""User commands on ``fs3://`` paths: ls cat cp rm mkdir stat; one file for what belongs together.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 failed, 2 wrong
usage. Errors say what failed, why, and what to do next (``running``).
"""
