"""``fs3 fsck``: the command, and what it is made of."""
