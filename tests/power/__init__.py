"""Power cuts of real programs: record what a process writes and syncs, then make the disk of any moment."""
