"""Anomaly: a model of what is normal, which marks what is not, though nobody labelled it.

    train       the recipe `train-anomaly`; start reading here
    networks    frozen teacher, student of another shape, segmentation head
    losses      cosine, focal, Dice, L1, the whole image's
    stages      denoiser and perturbed images, where the defects need them
    learn       steps of training, checkpoints, preview
    corrupt     batches: good images, and the same with a synthetic defect and its mask
    calibrate   from maps to a score and a threshold, on held-out good images and synthetic defects
    export      the bundle `<run>/model`: ONNX + JSON, all of the map's making inside the graph

Method: arXiv 2604.19240 (diffusion generation, asymmetric student–teacher). Knows nothing of jobs or the store.
"""
