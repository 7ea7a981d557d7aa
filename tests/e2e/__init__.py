"""Real processes, real TCP, real disks."""
