"""What `python -m tern_hw.estimate` says: what was asked, the facts, a report, a picture."""
