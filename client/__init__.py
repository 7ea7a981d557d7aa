"""To be written: the design note of fs3.client."""

assert __name__ == "fs3.client", (
    f"import this package as fs3.client, not {__name__}: it would be loaded twice"
)
