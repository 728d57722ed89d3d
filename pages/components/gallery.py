"""The pictures behind a number: asked from the store one page at a time, in cells of one size, with a large view behind each.

Stands below a chart and shows what its filters mean. How a cell and the large view look is `image_viewer`'s.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import image_viewer, oddity, text, veil, words
from pages.components.cached import cached, picture

ORDERS = {"newest": "Newest first", "surest": "Surest first", "unsure": "Least sure first"}
ODD_ORDERS = {"oddest": "Most unusual first", "newest": "Newest first"}
SIZE = 24


def behind(filters: jobs.Filters, heading: str, name: str = "behind") -> None:
    """Heading, number, order, cells, pages; the heading is Markdown, its parts escaped by the caller. Unusual ones with heat maps."""
    odd = filters.verdict == "unusual"
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute", key=f"{name}_head"):
        st.markdown(f"### {heading}", width="content")
        with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
            good = odd or st.toggle("Good ones too", key=f"{name}_good")
            if odd:
                veil.controls(name, on=True)
            orders = ODD_ORDERS if odd else ORDERS
            order = st.selectbox("Order", list(orders), format_func=orders.get, key=f"{name}_order_{filters.verdict}", width=170,
                                 label_visibility="collapsed")
    shown = filters if good else filters.but(verdict="defective")
    total = cached("images_count", shown)
    if not total:
        st.info("No defective part among these." if not good else "No picture among these.", icon=":material/check_circle:")
        return
    rows = cached("images", shown, order, SIZE, SIZE * (_page(shown, order, total, name) - 1))
    image_viewer.gallery(rows, _look(name, odd), SIZE)
    _pages(total, name)
    image_viewer.large(rows, _look(name, odd))


def _page(filters: jobs.Filters, order: str, total: int, name: str) -> int:
    """The page asked for; the first again when the question changed."""
    asked = (filters, order)
    if st.session_state.get(f"{name}_asked") != asked:
        st.session_state[f"{name}_asked"] = asked
        st.session_state.pop(f"{name}_at", None)
    return min(int(st.session_state.get(f"{name}_at", 1)), -(-total // SIZE))


def _pages(total: int, name: str) -> None:
    pages = -(-total // SIZE)
    st.caption(f"{text.count(total)} {'picture' if total == 1 else 'pictures'}")
    if pages > 1:
        st.pagination(pages, key=f"{name}_at")


def _look(name: str, odd: bool) -> image_viewer.Look:
    now, opacity = jobs.results.revision(), veil.chosen(name) if odd else 0

    def tools() -> image_viewer.Draw:
        return veil.over(_draw, veil.controls(f"{name}_large", opacity > 0, opacity), now)

    return image_viewer.Look(name, "inspection_id", veil.over(_draw, opacity, now), verdict, details, tools if odd else None)


def _draw(inspection_id: Any, width: int | None, boxes: bool) -> bytes:
    return picture(int(inspection_id), width or 1280, boxes)


def verdict(row: Any) -> str:
    """One line: icon, word, kind, and how sure."""
    said = f":red[:material/cancel:] {words.plain(row.top_class or 'Defective', 30)}" if row.is_defective \
        else ":green[:material/check_circle:] Good"
    return f"{said} · :violet[:material/help:] Unusual" if oddity.is_unusual(row.is_unusual) else said


def details(row: Any) -> None:
    """Beside the large picture: what, where, when."""
    st.markdown(verdict(row))
    where = {"Line": row.line, "Product": row.product, "Shift": f"{text.day(row.production_day)}, {row.shift}", "Lot": row.lot,
             "Camera": row.camera, "Part": row.unit_id if row.unit_id != str(row.inspection_id) else ""}
    st.markdown("  \n".join(f"**{k}** {words.plain(v, 60)}" for k, v in where.items() if v))
    found = cached("detections", [int(row.inspection_id)])
    for box in found[found["passes"]].sort_values("confidence", ascending=False).itertuples():
        st.markdown(f":material/crop_free: {words.plain(box.class_name, 40)} · {text.percent(box.confidence)} sure"
                    + (" · minor" if box.action == "minor" else ""))
    if row.review:
        st.caption(f"Reviewed: {row.review}. A review is kept beside the count and does not change it.")
