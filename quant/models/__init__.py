"""Models on disk and by name: full precision, prepared, artifacts; and their linear layers."""
