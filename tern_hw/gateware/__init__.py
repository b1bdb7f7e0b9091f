"""The accelerator in Amaranth: one block a file, `array.py` puts them together."""
