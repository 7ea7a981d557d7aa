"""What runs by itself: the lease keeper, the pass over verdicts and renewals, probes, a standby's reports."""
