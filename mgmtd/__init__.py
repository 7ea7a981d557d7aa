"""To be written: the design note of fs3.mgmtd."""

assert __name__ == "fs3.mgmtd", f"import this package as fs3.mgmtd, not {__name__}: it would be loaded twice"
