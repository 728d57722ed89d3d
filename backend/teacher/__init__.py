"""Teacher: what a diffusion model sees in a dataset's images, kept small on disk and brought into a detector.

    probe       the recipe that ranks decoder blocks and timesteps by a linear reader
    resvae      the network that compresses the stacked features to a latent and back
    repository  the recipe that builds the feature repository `<run>/repository`, and the door that reads it; start reading here
    source      raw features of a snapshot's pictures, which the repository is built from
    fusion      features into a detector's levels: filter, dynamic weights, cross-attention, gate
    extractors  frozen networks whose maps an anomaly model learns from: ImageNet ones on disk, or the denoiser itself
    quick       the same on a processor, by OpenVINO, at a quarter of the time

Knows nothing of boxes or of detectors' insides.
"""
