"""Run a deployed model over images, and draw what it found.

    engine      a model bundle behind one call, whatever the runtime underneath
    inspect     the recipes `inspect` (a batch into a run's parts) and `predict` (boxes for the scorers); start reading here
    reading     files in, pictures ready for the engine out: threads a bounded way ahead
    capture     when a picture was taken, of which unit, and whether it counts in plant trends
    keeping     which pictures stay on disk
    grouplog    the run's parts as a log of groups, so that a kill doubles nothing
    annotate    boxes and labels on a picture; light enough for the dashboard's process
"""
