"""Notebook 09's explorer: an image, a label, a stage and a gate to choose, and the map that they have."""

from collections.abc import Callable

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure


def explorer(draw: Callable[..., Figure], **choices: list[str]) -> widgets.VBox:
    """A control for each of `choices`, and below them the figure that draw(**values) returns."""
    controls = {
        name: widgets.ToggleButtons(options=options, description=name)
        if len(options) < 6
        else widgets.Dropdown(options=options, description=name)
        for name, options in choices.items()
    }
    output = widgets.interactive_output(lambda **values: display(draw(**values)), controls)
    return widgets.VBox([*controls.values(), output])
