"""Tables as notebooks show them."""

import pandas as pd


class Captioned:
    """A table with a caption, its numbers rounded, and nothing where there is no number."""

    def __init__(self, table: pd.DataFrame, caption: str, digits: int = 2) -> None:
        self.table, self.caption, self.digits = table.map(lambda cell: shown(cell, digits)), caption, digits

    def _repr_html_(self) -> str:
        styled = self.table.style.set_caption(self.caption).format(escape="html").hide(names=True)
        styled = styled.format_index(escape="html").format_index(escape="html", axis=1)
        styled = styled.set_table_styles([{"selector": "caption", "props": "text-align: left; font-style: italic"}])
        return f'<div style="overflow-x: auto">{styled.to_html()}</div>'

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.table.to_string()}"


def shown(cell: object, digits: int) -> str:
    """A number with so many digits after the point, without the sign of a zero."""
    if not isinstance(cell, float):
        return str(cell)
    return "" if pd.isna(cell) else f"{cell:z.{digits}f}"
