"""What `python -m tern_hw.explore` does: the points of a sweep, their figures, and the best.

axes           which options of an estimate are swept, and over which values
plan           the points: every combination that goes together; those that do not, counted
figures        what a point costs, and the key of everything that decides it
results        figures that are known, a line each; a killed sweep goes on from there
workers        where points are evaluated: here, in processes, on a Dask cluster
synthesis      the front's arrays through synthesis; cells: their columns in a report
objectives     what is minimised, and the Pareto front
sweep          all of it together: the facts
report         tables, and the front as CSV
plot, page     a picture, and a page that needs no network
"""
