"""One file for each method: validate, read, decide, write, answer."""
