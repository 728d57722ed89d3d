"""Diffusion: a denoiser (DDPM) learned from a dataset's train images, without labels. The one place that imports diffusers.

    ddpm      the recipe: network, training, the artifact `<run>/denoiser`; start reading here
    pictures  images as the denoiser takes them: scaled, grey or colour, on disk rather than in memory
    sampling  new images from noise: ancestral, DDIM, DPM-Solver++
    features  what the denoiser's decoder holds of a given image, at given timesteps
"""
