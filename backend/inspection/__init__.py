"""Run a deployed model over images, and draw what it found.

    inspect     the recipe `inspect`: a batch into a run's parts; start reading here
    watch       the recipe `watch`: a folder that a camera writes into, picture by picture, until it is stopped
    dropped     what is new in it and whole; `watchlog`: what was done, so that a kill loses and doubles nothing
    predict     the recipe `predict`: boxes, probabilities, or maps and scores, for the scorers
    shadow      the recipe `shadow`: the last days' kept pictures through another model; it counts nothing
    kept        which pictures these are
    check       the recipe `check`: stored pictures through the model in use, again and again
    imaging     how bright and how sharp a picture of a master part is
    engine      a detector's bundle behind one call, whatever the runtime underneath
    classifier_engine  the same for a classifier of whole images, whose boxes are as large as the picture
    anomaly_engine  the same for an anomaly model: maps and scores
    reading     files in, pictures ready for the engine out: threads a bounded way ahead
    capture     when a picture was taken, of which unit, and whether it counts in plant trends
    keeping     which pictures stay on disk
    grouplog    the run's parts as a log of groups, so that a kill doubles nothing
    annotate    boxes and labels on a picture; light enough for the dashboard's process
    heat        an anomaly map over a picture; as light
"""
