"""Other people's tools as processes: found, run within a time limit, their failures one sentence.

A tool that is not installed raises `TernError`, which says how to install it.
"""
