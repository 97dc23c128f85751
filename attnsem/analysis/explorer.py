"""Notebook 09's explorer: any test image, a label, a stage and a gate to choose, and the map that they have."""

import io
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from matplotlib.figure import Figure

from attnsem import StudyError

WIDEST = "640px"  # of the picture: it and its controls stand in one window of a laptop


def explorer(
    draw: Callable[[str, str, str, str], Figure],
    images: dict[str, Sequence[str]],
    labels: Sequence[str],
    stages: Sequence[str],
    gates: Sequence[str],
    *,
    image: str,
    stage: str,
    gate: str,
) -> widgets.VBox:
    """Controls, and below them the figure draw(image, label, stage, gate), first of a label that the image shows.

    images: the labels that each shows, by id. A search lists those whose id or labels have all its words,
    and goes to a label that it names.
    """
    search = widgets.Text(description="search", placeholder="id or labels, then Enter", continuous_update=False)
    chosen = widgets.Dropdown(description="image", options=listed(images), value=image)
    label = widgets.Dropdown(description="label")
    by_stage, by_gate = (
        widgets.ToggleButtons(description=name, options=options, value=value, style={"button_width": "auto"})
        for name, options, value in (("stage", stages, stage), ("gate", gates, gate))
    )
    note = widgets.Label()
    picture = widgets.Image(format="png", layout={"width": "100%", "max_width": WIDEST})

    def show(_: object = None) -> None:
        buffer, note.value = io.BytesIO(), f"{len(chosen.options)} of {len(images)} test images"
        try:
            figure = draw(chosen.value, label.value, by_stage.value, by_gate.value)
            figure.savefig(buffer, format="png", bbox_inches="tight")
        except StudyError as error:
            note.value = str(error)
        picture.value = buffer.getvalue()

    def choose(_: object = None, text: str = "") -> None:
        true = images[chosen.value]
        before = next((name for name in labels if name in true and name.casefold() in text), label.value)
        others = [(name, name) for name in labels if name not in true]
        label.unobserve(show, "value")
        label.options = [(f"{name} (in the image)", name) for name in true] + others
        label.value = before if before in true else label.options[0][1]
        label.observe(show, "value")
        show()

    def find(change: dict) -> None:
        found = matching(images, change["new"])
        note.value = f"{len(found)} of {len(images)} test images"
        if found:
            chosen.unobserve(choose, "value")
            chosen.options, chosen.value = listed(found), next(iter(found))
            chosen.observe(choose, "value")
            choose(text=change["new"].casefold())

    search.observe(find, "value")
    for control in (by_stage, by_gate):
        control.observe(show, "value")
    chosen.observe(choose, "value")
    label.observe(show, "value")
    choose()
    rows = [search, chosen, note], [label, by_stage, by_gate]
    return widgets.VBox([*(widgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in rows), picture])


def listed(images: dict[str, Sequence[str]]) -> list[tuple[str, str]]:
    return [(f"{image}: {', '.join(labels)}", image) for image, labels in images.items()]


def matching(images: dict[str, Sequence[str]], text: str) -> dict[str, Sequence[str]]:
    """The images whose id and labels have all the words of the text in them, whatever their case."""
    words = text.replace(",", " ").casefold().split()
    lines = ((image, labels, " ".join([image, *labels]).casefold()) for image, labels in images.items())
    return {image: labels for image, labels, line in lines if all(word in line for word in words)}
