"""Reproduces and tests *Negative Inner-Loop Learning Rates Learn Universal Features*.

Begin with `model`, `episodes` and `adaptation`: the network, the tasks and the inner loop. Then
`training` (the outer loop), `evaluation` (on-task and off-task) and `runs` (what a training leaves
on disk). Every other subject has one folder:

    engine     the same meta-gradient, faster
    data       data sets
    evidence   tables in, verdicts out; no torch
    plots      every figure
    questions  what notebooks 5 to 9 compute
    explore    notebook 0
    studies    grids of notebooks, and the command line
"""

__version__ = "0.1.0"
