"""The cluster manager: who is a member, who may serve, where chunks lie.

Any number of processes, one of them primary by a lease record in the KV store. What must outlive it is in
the KV store (``store``); what it thinks of the living is in memory, one ``Term`` for each time that it is
primary, and made anew by the next one.

::

    lease  liveness  grants  placement  routing_log  cluster_time                  pure
    chain_machine  chain_watch                                                     pure: chains' records
    store                                                                          records, transactions
    term  writer                                                                   the picture, one writer
    ops/  one file for each method     workers/  what runs by itself               shells
    hearing  beacons in, leases out    server  composition

Persist first, then publish: nothing is told to anybody that a new primary would not find.

Source: design 2, 7.
"""

assert __name__ == "fs3.mgmtd", f"import this package as fs3.mgmtd, not {__name__}: it would be loaded twice"
