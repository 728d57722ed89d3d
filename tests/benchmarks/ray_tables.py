"""README's lines on a Ray cluster: same results, killed nodes, how a folder inspection scales."""

from statistics import median
from typing import Any

from tests.benchmarks.markdown import cell, markdown, source

SAME, KILLED, ALONE = "same results", "killed nodes", "folder, no cluster, 1 core"


def clustered(result: dict[str, Any]) -> str:
    """What was equal and what was lost, in words; then a row for each way to look at the folder."""
    arms = result["arms"]
    same, killed = ({k: v[0] for k, v in arms[name].items()} for name in (SAME, KILLED))
    differ = f"{same['rows that differ']:,.0f} of {same['rows']:,.0f} rows differ"
    told = [f"- The same training by a cluster and by one machine: weights {_equal(same['weights equal'])}, "
            f"figures {_equal(same['metrics equal'])}; the same folder: {differ}.",
            f"- {killed['kills']:,.0f} nodes killed under {killed['runs']:,.0f} runs: {killed['went on elsewhere']:,.0f} went on at "
            f"another node by themselves; {killed['rows lost']:,.0f} rows lost, {killed['rows doubled']:,.0f} doubled."]
    alone = median(arms[ALONE]["images/s"])
    rows = [[name, cell(arm["images/s"]), f"{median(arm['images/s']) / alone:.2f}", cell(arm["s, whole run"])]
            for name, arm in arms.items() if "images/s" in arm]
    rows += [[name, "", "", cell(arm["s, whole run"])] for name, arm in arms.items() if "trainings at once, most" in arm]
    return "\n".join([*told, "", *markdown(["", "images/s", "against no cluster", "s, whole run"], rows), "", source(result)])


def _equal(value: float) -> str:
    return "equal" if value else "NOT equal"
