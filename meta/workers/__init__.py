"""Background work of the metadata service: each file one worker, ``work_once`` at a time."""
