"""Reproduces and tests *Negative Inner-Loop Learning Rates Learn Universal Features*.

Imports run one way: `episodes`, `model` and `runs` stand on the ground; `data` and `adaptation` on
them; then `training` and `features`; then `study`. `statistics` and `figures` take pandas tables
and know nothing of torch.
"""

__version__ = "0.1.0"
