"""What can happen to a simulated mesh: one file each."""
