"""Kernels, their peers and the machine's roofs, timed side by side in one run."""
