"""Evaluation: figures that agree with the published scorers. Chooses thresholds on val; on test it only looks.

    detection       COCO averages, thresholds, what is found, missed and wrongly rejected
    anomaly         AUROC of images and pixels, average precision, per-region overlap
    classification  accuracy of whole images, class by class, and what is taken for what
    scored          what one run found and hit, image by image, small enough to keep
    outcomes        what one run says of each image: rejected or not, at any threshold
    intervals       how far a difference might move with other images and other seeds
    paired          are two detectors really different, and in which classes
    verdict         what that comes to, in a word and a sentence; how many more seeds would settle it
    rates           shares of images rejected or passed, on draws of the images
    agreement       two arms at their thresholds, image by image: false rejects, missed defects, McNemar
    cost            the threshold that costs least, and what it costs
    dose            the metric against synthetic images and real labels, and what one is worth in the other
    looks           one look of a model at its test set, kept and counted; the recipe `score`
    compare         the recipe that ties these together: finished trainings, grouped in arms, and one verdict. entrants reads them,
                    curves finds the arms that make up a curve, cautions says what to know before trusting it
"""
