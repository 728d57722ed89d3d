"""Figures: made once for equal rows."""

import pandas as pd

from pages.components import charts


def test_a_figure_is_made_once_for_equal_rows() -> None:
    """Shown to all who see the same; other rows, another figure."""
    frame = pd.DataFrame(dict(value=["L1", "L2"], inspected=[10, 20], defective=[1, 4], rate=[0.1, 0.2], low=[0.0, 0.1], high=[0.3, 0.4]))
    made = charts.kept(charts.bars, frame, "")
    assert charts.kept(charts.bars, frame.copy(), "") is made and made.to_json() == charts.bars(frame, "").to_json()
    other = charts.kept(charts.bars, frame.assign(rate=[0.1, 0.3]), "")
    assert other is not made and list(other.data[0].x) == [0.3, 0.1]
    assert charts.kept(charts.bars, frame, "L1") is not made
