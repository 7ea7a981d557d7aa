"""fs3: a disaggregated file system for AI training and inference."""

__version__ = "0.1.0"

if not __debug__:
    raise SystemExit("fs3 keeps its invariants as assertions: run it without -O and PYTHONOPTIMIZE")
