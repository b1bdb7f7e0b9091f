"""The cost model held to the RTL, its synthesis and its gates."""
