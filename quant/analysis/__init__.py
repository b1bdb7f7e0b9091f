"""Measures of what quantisation does to a model: weights, codes, activations, features, planes.

One module a question; each returns a report of plain numbers, from which `tables` and `figures`
make text and pictures, and `quant.analyze` JSON.
"""
