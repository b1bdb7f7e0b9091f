"""Ternary quantisation of language models: from a checkpoint to an artifact.

Importing the package loads nothing else; torch and transformers live only below it.
"""
