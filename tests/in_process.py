"""A notebook parameterised by papermill and executed in this process, which spares a kernel."""

from unittest import mock

import matplotlib.pyplot as plt
import papermill.iorw
import papermill.parameterize
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from negmeta_utils.studies.study_file import NOTEBOOKS

KINDS = "text/markdown", "text/html"


def execute(name, parameters):
    """What the cells of notebook `name` show and print, as one text. As in a kernel, what they
    define is seen by `In` and `globals()`."""
    notebook = papermill.iorw.load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb"))
    notebook = papermill.parameterize.parameterize_notebook(notebook, parameters)
    shell, texts = InteractiveShell.instance(), []
    try:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                with mock.patch.object(plt, "show", plt.close), capture_output() as seen:
                    ended = shell.run_cell(cell.source, store_history=True)
                    ended.raise_error()
                rich = [output.data for output in seen.outputs]
                rich.append(shell.display_formatter.format(ended.result)[0])
                texts += [seen.stdout, *(data.get(kind, "") for data in rich for kind in KINDS)]
    finally:
        InteractiveShell.clear_instance()
        plt.close("all")
    return "\n".join(texts)
