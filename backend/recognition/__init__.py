"""Recognition: a classifier of whole images, trained on a snapshot and deployed as ONNX + JSON in a detector's place.

    train     the recipe; start reading here
    material  which class a picture is of, and what a dataset lacks
    batches   pictures in memory, the order they come in, augmentation
    networks  ResNet-18 from scratch, EfficientNet-Lite0 from ImageNet weights
    learn     steps, checkpoints, curves, preview
    export    the deployed artifact, checked against the network it came from
"""
