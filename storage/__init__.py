"""To be written: the design note of fs3.storage."""

assert __name__ == "fs3.storage", f"import this package as fs3.storage, not {__name__}: it would be loaded twice"
