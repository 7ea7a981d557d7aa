"""What can befall a world: one file for each family of faults. ``tests.sim.trouble`` draws among them."""
