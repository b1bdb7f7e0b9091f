"""Properties of the emitted gateware, for a solver: what each block promises, for all inputs.

A harness stands around a block as it is emitted, and sees its public members alone. What is said
of a block is said here a second time, from its contract: nothing of its inside is used.
"""
