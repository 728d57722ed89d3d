"""Heat maps with their numbers in the cells: what the fidelity and the sweep view share."""

import plotly.graph_objects as go

# Opaque from end to end and never dark, so that one dark ink reads on every cell (5:1 at least), on the light and the dark page.
SCALE = [[0.0, "#E6EEF4"], [1.0, "#4C96CB"]]
INK = "#12202B"


def cells(values: list[list[float | None]], x: list[str], y: list[str], digits: int = 2) -> go.Heatmap:
    """`values`: a row for each y. Missing values stay empty."""
    told = [["" if v is None else f"{v:.{digits}f}" for v in row] for row in values]
    known = [v for row in values for v in row if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return go.Heatmap(z=values, x=x, y=y, text=told, texttemplate="%{text}", colorscale=SCALE, showscale=False, xgap=3, ygap=3,
                      zmin=low - 0.02, zmax=high + 0.02, hoverongaps=False, hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
                      textfont=dict(size=13, color=INK))


def frame(figure: go.Figure, column: int, row: int, color: str) -> None:
    """A line round one cell of a map whose axes are categories."""
    figure.add_shape(type="rect", x0=column - 0.49, x1=column + 0.49, y0=row - 0.49, y1=row + 0.49, line=dict(color=color, width=3))
