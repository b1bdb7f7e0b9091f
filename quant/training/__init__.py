"""Distilling a quantised student from its own full-precision model.

`recipe` what is trained how · `student` the model that is trained · `batches` which tokens a step
sees · `loop` the steps · `checkpoint` what a killed run goes on from · `log` what is written down.
"""
