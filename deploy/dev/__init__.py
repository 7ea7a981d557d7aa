"""``fs3 dev``: a whole cluster of real processes on this machine, for use, for the demo and for tests.

plan        which processes, with which settings, in which directory (pure)
process     starts, finds and stops one process of a cluster
cluster     brings a cluster up, looks at it, takes it down
commands    ``fs3 dev up|status|down|kill|restart|logs``
"""
