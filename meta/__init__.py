"""To be written: the design note of fs3.meta."""

assert __name__ == "fs3.meta", f"import this package as fs3.meta, not {__name__}: it would be loaded twice"
