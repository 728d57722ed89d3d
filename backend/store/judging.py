"""Which rule applies to a detection or to an anomaly score, and what the detections of an inspection come to: as SQL.

    rules, judged, summed      of a detector: policies of people before the model's own thresholds
    unusual_rules, looked      of an anomaly model, whose word stands beside the verdict and never enters it

`facts` keeps what they say; pages ask them anew, of another model or of other thresholds. Knows nothing of how rows come in or change.
"""

# The rule for each (plant, product, model_id, class_name) of `keys`: from the narrowest policy to the widest, then the model's
# own threshold, then 0.25. Each of the three settings falls through by itself. A limit set for one anomaly model is no rule on a class.
_RULES = """
SELECT k.plant, k.product, k.model_id, k.class_name,
       coalesce(a.action, b.action, c.action, d.action, 'reject') AS action,
       coalesce(a.threshold, b.threshold, c.threshold, d.threshold, t.threshold, 0.25)::FLOAT AS threshold,
       coalesce(a.min_side, b.min_side, c.min_side, d.min_side, 0)::FLOAT AS min_side,
       CASE WHEN coalesce(a.plant, b.plant, c.plant, d.plant) IS NULL THEN 'model' ELSE 'policy' END AS source
FROM ({keys}) k
LEFT JOIN policies a ON a.plant = k.plant AND a.product = k.product AND a.class_name = k.class_name AND a.model_id = '' AND k.product <> ''
LEFT JOIN policies b ON b.plant = k.plant AND b.product = '' AND b.class_name = k.class_name AND b.model_id = ''
LEFT JOIN policies c ON c.plant = k.plant AND c.product = k.product AND c.class_name = '' AND k.product <> ''
LEFT JOIN policies d ON d.plant = k.plant AND d.product = '' AND d.class_name = ''
LEFT JOIN thresholds t ON t.model_id = k.model_id AND t.class_name = k.class_name
"""

# What makes a picture unusual, for each (plant, product, model_id) of `keys`: a policy on the class 'unusual', then the model. A policy
# on all classes says nothing here (our choice): it speaks of confidences, 0 to 1, and an anomaly score has a scale of its own. So one
# that names a model holds for that model; one that names none, as they were written once, for any. Of two that hold, the newest.
_UNUSUAL = """
SELECT k.plant, k.product, k.model_id, coalesce(a.action, b.action, 'reject') AS action,
       coalesce(a.threshold, b.threshold, t.threshold)::FLOAT AS threshold,
       CASE WHEN coalesce(a.plant, b.plant) IS NULL THEN 'model' ELSE 'policy' END AS source
FROM ({keys}) k
LEFT JOIN policies a ON a.plant = k.plant AND a.product = k.product AND a.class_name = 'unusual' AND a.model_id IN ('', k.model_id)
    AND k.product <> ''
LEFT JOIN policies b ON b.plant = k.plant AND b.product = '' AND b.class_name = 'unusual' AND b.model_id IN ('', k.model_id)
LEFT JOIN thresholds t ON t.model_id = k.model_id AND t.class_name = 'unusual'
QUALIFY row_number() OVER (PARTITION BY k.plant, k.product, k.model_id ORDER BY a."at" DESC NULLS LAST, a.event_id DESC NULLS LAST,
                           b."at" DESC NULLS LAST, b.event_id DESC NULLS LAST) = 1
"""

# What an anomaly model said of each inspection of `source` (fresh or facts), with the rule that applies.
_LOOKED = """
WITH score AS (
    SELECT a.inspection_id, s.plant, s.product, a.model_id, a.anomaly_score FROM anomalies a JOIN {source} s USING (inspection_id)
    QUALIFY row_number() OVER (PARTITION BY a.inspection_id ORDER BY a.model_id, a.anomaly_score) = 1),
rule AS (""" + _UNUSUAL.format(keys="SELECT DISTINCT plant, product, model_id FROM score") + """)
SELECT score.*, rule.action, rule.threshold, CASE WHEN action <> 'ignore' THEN anomaly_score >= threshold END AS is_unusual
FROM score JOIN rule USING (plant, product, model_id)
"""

# Detections of the inspections of `source` (fresh or facts; or with another model's id), each with its rule and whether it passes.
_JUDGED = """
WITH seen AS (
    SELECT d.inspection_id, d.class_name, d.confidence, d.x1, d.y1, d.x2, d.y2, least(d.x2 - d.x1, d.y2 - d.y1) AS side,
           s.plant, s.product, s.model_id
    FROM {detections} d JOIN {source} s USING (inspection_id)),
rule AS (""" + _RULES.format(keys="SELECT DISTINCT plant, product, model_id, class_name FROM seen") + """)
SELECT seen.*, rule.action, rule.threshold, rule.min_side,
       rule.action <> 'ignore' AND seen.confidence >= rule.threshold AND seen.side >= rule.min_side AS passes
FROM seen JOIN rule USING (plant, product, model_id, class_name)
"""

# What the judged detections of an inspection come to.
_SUMMED = """
SELECT inspection_id, count(*) FILTER (WHERE passes AND action = 'reject') AS defects,
       count(*) FILTER (WHERE passes AND action = 'minor') AS minor,
       max_by(class_name, (passes AND action = 'reject', confidence, class_name)) AS top_class, max(confidence) AS top_confidence,
       max_by(confidence, (passes AND action = 'reject', confidence, class_name)) AS class_confidence,
       min(abs(confidence - threshold)) FILTER (WHERE action <> 'ignore') AS margin
FROM {judged} GROUP BY inspection_id
"""


def judged(source: str, detections: str = "detections") -> str:
    """SQL of the detections of a relation's inspections, with action, threshold and passes."""
    return _JUDGED.format(source=source, detections=detections)


def summed(relation: str) -> str:
    """SQL of what a relation of judged detections comes to: per inspection defects, minor, top_class, top_confidence, margin, and
    class_confidence, that of top_class."""
    return _SUMMED.format(judged=relation)


def rules(keys: str) -> str:
    """SQL of the rules for a query's (plant, product, model_id, class_name)."""
    return _RULES.format(keys=keys)


def looked(source: str) -> str:
    """SQL of what anomaly models said of a relation's inspections: inspection_id, model_id, anomaly_score, threshold, is_unusual ..."""
    return _LOOKED.format(source=source)


def unusual_rules(keys: str) -> str:
    """SQL of what makes a picture unusual, for a query's (plant, product, model_id)."""
    return _UNUSUAL.format(keys=keys)
