"""Evaluation: figures that agree with the published scorers. Chooses thresholds on val; on test it only looks.

    detection  COCO averages, thresholds, what is found, missed and wrongly rejected
    anomaly    AUROC of images and pixels, average precision, per-region overlap
    scored     what one run found and hit, image by image, small enough to keep
    paired     are two detectors really different: a bootstrap over seeds and images
"""
