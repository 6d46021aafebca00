"""Grids of runs: what is to be run (grid), where (folder), in which order (order), how (running, local, slurm)."""
