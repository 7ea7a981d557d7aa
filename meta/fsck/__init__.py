"""The check of a whole file system, online: names, inodes, sessions, chunks, replicas (``fs3 fsck``).

``findings`` says what can be wrong; ``names``, ``inodes``, ``sessions``, ``chunks`` judge records and are
pure; ``walk`` reads the KV store, ``replicas`` the storage nodes; ``check`` joins them; ``mend`` repairs.
"""
