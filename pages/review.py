"""What people say for themselves, a picture at a time: of doubtful ones, of unknown defects, of a random sample; and where defects are.

Which of the four stands in the URL as `queue`. A person's verdict is kept beside the model's and changes no counted rate.
"""

import streamlit as st

from pages.components import label_view, plant, review_queue, review_sample
from pages.components.cached import cached

SAMPLE, LABEL = "Random sample", "Label"


def review(shown: str) -> None:
    name = LABEL                                 # pictures of datasets can be labelled before anything was inspected
    if not plant.inspected(shown):
        with st.container(horizontal=True, vertical_alignment="center", key="nothing_inspected"):
            st.caption("Nothing inspected yet; until then, pictures of datasets can be labelled.", width="content")
            plant.link("inspection", "Go to Inspection", icon=":material/image_search:")
            plant.bring_back()
    else:
        name = st.segmented_control("Queue", [*review_queue.QUEUES, SAMPLE, LABEL], default="Doubtful", required=True, key="queue",
                                    bind="query-params", label_visibility="collapsed")
    st.fragment(queue)(shown, name)              # a key press runs this much of the page


def queue(shown: str, name: str) -> None:
    with plant.sound():
        if name == SAMPLE:
            review_sample.show(shown)
        elif name == LABEL:
            label_view.show(shown)
        else:
            review_queue.show(shown, review_queue.QUEUES[name])


with plant.sound():
    review(plant.begin("Review", watch=False, ends=cached("datasets").empty))
