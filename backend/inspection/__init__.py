"""Run a deployed model over images, and draw what it found.

    inspect     the recipe `inspect`: a batch into a run's parts; start reading here
    predict     the recipe `predict`: boxes, or maps and scores, for the scorers
    engine      a detector's bundle behind one call, whatever the runtime underneath
    anomaly_engine  the same for an anomaly model: maps and scores
    reading     files in, pictures ready for the engine out: threads a bounded way ahead
    capture     when a picture was taken, of which unit, and whether it counts in plant trends
    keeping     which pictures stay on disk
    grouplog    the run's parts as a log of groups, so that a kill doubles nothing
    annotate    boxes and labels on a picture; light enough for the dashboard's process
    heat        an anomaly map over a picture; as light
"""
