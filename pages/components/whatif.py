"""What a batch would look like at another threshold, from the scores already logged: no new inference.

Pure frames in, frames out; the store keeps the verdicts that count, this only answers "what if".
"""

from dataclasses import dataclass

import pandas as pd

Rules = dict[str, tuple[str, float, float]]      # class_name -> (action, threshold, min_side)
UNRULED = ("reject", 0.25, 0.0)                  # a kind no rule and no model speaks of, as the store has it


@dataclass(frozen=True)
class Tried:
    """A threshold on the slider: for one kind, or for all when `kind` is ''."""

    kind: str
    at: float


def rules_of(today: pd.DataFrame) -> Rules:
    columns = today[["class_name", "action", "threshold", "min_side"]]
    return {kind: (action, float(at), float(side)) for kind, action, at, side in columns.itertuples(index=False, name=None)}


def moved(rules: Rules, kinds: list[str], tried: Tried) -> Rules:
    """The rules with the tried threshold in them."""
    return {**rules, **{k: (rules.get(k, UNRULED)[0], tried.at, rules.get(k, UNRULED)[2]) for k in kinds if tried.kind in ("", k)}}


def found(raw: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """The scores that pass these rules, with the action of their kind; the surest of each picture first."""
    of = raw["class_name"].map(lambda k: rules.get(k, UNRULED))
    action, threshold, side = (of.map(lambda rule, i=i: rule[i]) for i in range(3))
    passes = (action != "ignore") & (raw["confidence"] >= threshold.astype(float)) & (raw["side"] >= side.astype(float))
    return raw.assign(action=action)[passes].sort_values("confidence", ascending=False, kind="stable")


def verdicts(rows: pd.DataFrame, passing: pd.DataFrame) -> pd.DataFrame:
    """Rows with `defective`, `kind` and `confidence`: the surest find of each picture, rejects before minor ones."""
    ordered = passing.sort_values("action", ascending=False, kind="stable")          # reject before minor
    top, ids = ordered.drop_duplicates("inspection_id").set_index("inspection_id"), rows["inspection_id"]
    return rows.assign(
        defective=ids.map(top["action"]).astype("str") == "reject", kind=ids.map(top["class_name"]).astype("str").fillna(""),
        confidence=ids.map(top["confidence"]).astype(float).fillna(0.0))


def thresholds(rules: Rules) -> dict[str, float]:
    """For drawing: a kind that is ignored is never drawn."""
    return {k: 2.0 if action == "ignore" else threshold for k, (action, threshold, _) in rules.items()}
