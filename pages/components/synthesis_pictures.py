"""How the pictures of a synthetic set are drawn: one large beside its original and mask, a sheet of all, and one enlarged to look into.

Asks `jobs.results.synthetic_picture` for each view of a picture. Knows nothing of what a person says of one.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import image_viewer, text, words

SHEET, LOUPE = 220, 720            # pixels wide at most
ALL = 2**31
# what it is called, cells on a page: 24 to 36 pictures to send at each key press
SHEETS = {"strip": ("Side by side", 12), "outlined": ("Outlined", 24), "result": ("Plain", 24)}
VERDICTS = {"accept": ("Accepted", "green", ":material/check_circle:"), "reject": ("Rejected", "red", ":material/cancel:"),
            "again": ("Again", "orange", ":material/refresh:"), "": ("Undecided", "gray", ":material/help:")}
PANELS = {"original": "Original", "mask": "Where", "result": "Made", "outlined": "Made, outlined"}

STYLE = """<style>
.st-key-trio {display: grid !important; gap: .6rem; grid-template-columns: repeat(var(--panels, 3), minmax(0, 1fr));}
.st-key-trio [data-testid="stImage"], .st-key-trio [data-testid="stImageContainer"] {width: 100%;}
.st-key-trio img {width: 100%; height: min(46vh, 440px); object-fit: contain; background: rgb(128 128 128 / 12%); border-radius: .4rem;}
[class*="st-key-made_cell_"] {position: relative; gap: .2rem; padding: .3rem; border-radius: .5rem;}
[class*="st-key-made_cell_now_"] {outline: 2px solid var(--st-primary-color, #2E7EBB);}
[class*="st-key-made_cell_"] [data-testid="stImage"], [class*="st-key-made_cell_"] [data-testid="stImageContainer"] {width: 100%;}
[class*="st-key-made_cell_"] img {width: 100%; height: 118px; object-fit: contain; background: rgb(128 128 128 / 12%);
  border-radius: .3rem;}
[class*="st-key-strip_"] {display: grid !important; gap: .2rem; grid-template-columns: repeat(3, minmax(0, 1fr));}
[class*="st-key-made_cell_"][class*="_reject_"] img {opacity: .4;}
[class*="st-key-made_cell_"] [data-testid="stCaptionContainer"] p {white-space: nowrap; overflow: hidden; text-overflow: ellipsis;}
[class*="st-key-pick_"] {position: absolute !important; inset: 0; width: 100% !important; z-index: 1;}
[class*="st-key-pick_"] * {height: 100%; width: 100%;}
[class*="st-key-pick_"] button {opacity: 0; cursor: pointer;}
[class*="st-key-pick_"] button:focus-visible {opacity: .35;}
@media (max-width: 640px) {
  .st-key-say {gap: .35rem !important;} .st-key-say button {padding: .25rem .55rem;}
  .st-key-say :is(kbd, .stMarkdownColoredText) {display: none;}
  .st-key-trio {grid-template-columns: repeat(2, minmax(0, 1fr));}
  .st-key-trio > :has(.st-key-panel_result) {order: -1; grid-column: 1 / 3;}
  .st-key-trio img {height: min(22vh, 190px);} .st-key-trio .st-key-panel_result img {height: min(36vh, 320px);}
}
</style>"""


@st.cache_data(max_entries=800, show_spinner=False)      # a set never changes
def drawn(run_id: str, file: str, width: int, what: str) -> bytes:
    picture: bytes = jobs.results.synthetic_picture(run_id, file, width, what)
    return picture


@st.cache_data(max_entries=20, show_spinner=False)       # neither does a dataset
def names(snapshot_id: str) -> dict[str, str]:
    """File name by image id."""
    rows = jobs.results.dataset_images(snapshot_id, limit=ALL)
    return dict(zip(rows["image_id"], rows["file_name"], strict=True))


def panels(item: dict[str, Any], outlines: bool) -> list[str]:
    """Views that there are of a picture, side by side: an invented one has no original."""
    made = ["outlined" if outlines else "result"]
    return [*(["original"] if item["parent"] else []), *(["mask"] if item["mask"] or item["boxes"] else []), *made]


def go(run_id: str, file: str) -> None:
    """Look at this one."""
    st.session_state[f"at_{run_id}"] = file


# ---- one, large

def loupe(made: dict[str, Any], item: dict[str, Any], files: list[str]) -> None:
    """`files`: what one goes through in the large view."""
    st.html(STYLE)
    outlines = bool(st.session_state.get("made_outlines"))
    views = panels(item, outlines)
    st.html(f"<style>.st-key-trio {{--panels: {len(views)};}}</style>")
    with st.container(key="trio"):
        for what in views:
            with st.container(key=f"panel_{'result' if what == 'outlined' else what}", gap="xsmall"):
                _picture(made["run_id"], item["file"], LOUPE, what)
                st.caption(PANELS[what])
    with st.container(horizontal=True, vertical_alignment="center", key="loupe_tools"):
        st.toggle("Outlines", key="made_outlines")
        st.button("Enlarge", icon=":material/zoom_in:", type="tertiary", key="made_enlarge", on_click=enlarge,
                  args=(item["file"], files))
        st.markdown(badge(item), width="content")
        st.caption(facts(made, item), width="content")


def badge(item: dict[str, Any]) -> str:
    """What a person said, and whether a detector missed a label: it informs, and decides nothing."""
    said, color, _ = VERDICTS[item["verdict"]]
    return f":{color}-badge[{said}]{' :violet-badge[Label missed]' if item.get('missed') else ''}"


def facts(made: dict[str, Any], item: dict[str, Any]) -> str:
    """Where it comes from and what made it, on a line."""
    known = names(made["snapshot_id"])
    parts = [words.plain(item["class_name"], 40)]
    for label, key in (("from", "parent"), ("with a defect of", "donor")):
        if item[key]:
            parts.append(f"{label} {words.plain(known.get(item[key], item[key][:12]), 48)}")
    parts += [f"seed {item['seed']}"] if item["seed"] is not None else []
    parts += [f"attempt {item['attempt']}"] if item["attempt"] is not None else []
    parts += [f"prompt “{words.plain(item['prompt'], 120)}”"] if item["prompt"] else []
    for label in ("strength", "guidance", "steps", "opacity"):
        parts += [f"{label} {item[label]:.3g}"] if item[label] is not None else []
    parts += [f"adapter {words.plain(item['adapter'])}"] if item["adapter"] else []
    parts += [f"weights {words.plain(item['adapter_hash'])}"] if item.get("adapter_hash") else []
    parts += [f"covers {text.percent(item['area'])}"] if item["area"] else []
    return " · ".join(filter(None, parts))


def _picture(run_id: str, file: str, width: int, what: str) -> None:
    image_viewer.picture(lambda key, wide, boxes: drawn(run_id, key, wide, what), file, width, False, f"{PANELS[what]}: {file}")


# ---- all

def sheet(made: dict[str, Any], shown: list[dict[str, Any]], at: int) -> None:
    """A page of them, the one that the large picture is of among them; a click makes another the large one."""
    kind = str(st.segmented_control("Sheet", list(SHEETS), default="strip", required=True, format_func=lambda k: SHEETS[k][0],
                                    key="made_sheet", label_visibility="collapsed"))
    size = SHEETS[kind][1]
    page, pages = at // size, -(-len(shown) // size)
    grid = st.grid("auto", min_column_width=300 if kind == "strip" else 130, gap="small")
    for n, item in enumerate(shown[page * size:(page + 1) * size]):
        state = "now" if page * size + n == at else "to"
        with grid.cell(), st.container(key=f"made_cell_{state}_{item['verdict'] or 'open'}_{n}"):
            _cell(made["run_id"], item, kind, n)
    if pages > 1:
        key = f"made_page_{page}"                    # it follows the large picture, so each page has a widget of its own
        st.pagination(pages, default=page + 1, key=key, width="stretch", on_change=_turn,
                      args=(key, made["run_id"], [i["file"] for i in shown[::size]]))


def _cell(run_id: str, item: dict[str, Any], kind: str, n: int) -> None:
    if kind == "strip":
        with st.container(key=f"strip_{n}"):
            for what in panels(item, False):
                _picture(run_id, item["file"], SHEET, what)
    else:
        _picture(run_id, item["file"], SHEET, kind)
    st.caption(f"{badge(item) if item['verdict'] or item.get('missed') else ''} {words.plain(item['class_name'], 40)}")
    st.button(f"Look at {item['file']}", key=f"pick_{n}_{item['file']}", on_click=go, args=(run_id, item["file"]))


def _turn(key: str, run_id: str, firsts: list[str]) -> None:
    """Another page: its first picture is the large one."""
    go(run_id, firsts[int(st.session_state[key]) - 1])


# ---- one, enlarged

def enlarge(file: str, files: list[str]) -> None:
    st.session_state.update(made_open=file, made_ids=files)
    st.rerun()


def large(run_id: str, tell: Callable[[dict[str, Any], list[str]], None]) -> None:
    """The dialog, if one is open: original, mask and result in one place, to and fro, with zoom. `tell` writes the verdict's buttons beside
    it, of an item and the files that one goes through."""
    if "made_open" not in st.session_state:
        return
    made = jobs.synthetic(run_id)
    rows = pd.DataFrame(made["items"]).assign(file_name=lambda frame: frame["file"])

    def tools() -> image_viewer.Draw:
        go(run_id, st.session_state["made_open"])
        what = str(st.segmented_control("View", ["result", "original", "mask"], default="result", required=True, format_func=PANELS.get,
                                        key="made_what", label_visibility="collapsed"))
        return lambda key, width, boxes: drawn(run_id, key, width, "outlined" if boxes and what == "result" else what)

    def beside(row: Any) -> None:
        item = next(i for i in jobs.synthetic(run_id)["items"] if i["file"] == row.file)
        tell(item, st.session_state["made_ids"])
        st.markdown("  \n".join(facts(made, item).split(" · ")))

    st.html(image_viewer.STYLE)
    look = image_viewer.Look("made", "file", lambda key, width, boxes: drawn(run_id, key, width, "result"), None, beside, tools)
    image_viewer.large(rows, look)
