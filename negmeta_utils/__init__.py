"""Reproduces and tests *Negative Inner-Loop Learning Rates Learn Universal Features*.

Imports run one way: `episodes`, `model`, `native` and `runs` stand on the ground; `data`,
`adaptation` and `adjoint` on them; then `rates` and `config`; then `training` and `features`; then
`explore`, its figures and its widgets, which are notebook 0. `study` knows notebooks only, and
`report` what they left. `statistics`, `claims` and `figures` take pandas tables and know nothing of
torch.
"""

__version__ = "0.1.0"
