"""``fs3 demo``: the main job on a cluster of this machine, with a node killed while it is read.

dataset     what is written: which files, which bytes, which hashes
writing     writes it, with a progress bar
reader      one of the reader processes: shuffled batches, every byte hashed
reading     runs the readers, kills a storage node in the middle, gathers what they saw
report      the table, and build/demo/report.json
command     ``fs3 demo``
"""
