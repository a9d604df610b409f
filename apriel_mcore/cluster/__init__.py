"""A run as one SLURM job: sliced into nodes, launched, and kept through preemption and time limits."""
