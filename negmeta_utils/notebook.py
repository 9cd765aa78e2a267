"""How every notebook begins."""

from negmeta_utils.parameters import refuse_unknown
from negmeta_utils.plots.style import set_style


def begin(notebook: dict) -> None:
    """Set the style of all figures, and raise ValueError where papermill or a study set a parameter
    that the notebook does not have.

    notebook: its globals().
    """
    refuse_unknown(notebook)
    set_style()
