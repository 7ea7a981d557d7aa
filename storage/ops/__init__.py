"""The operations of the storage service: one file for each method (``fs3.wire.storage``).

Order in each: validate, authorise, ask the target's runner, answer. Handlers that do not wait are plain
functions; those of the bulk plane that may run in its threads say so.
"""
