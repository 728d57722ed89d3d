"""Synthesis: pictures of defects that nobody has photographed, with their labels.

    masks       shapes: Perlin noise, unions and intersections, foreground, polygons
    perturb     what a diffusion model puts into them: the DDPM route
    sources     and what else may: another surface, Gaussian noise
    blend       normal image, change and mask become one image; the effective mask; whether features see it
    pool        perturbed images kept in advance: `<run>/perturbed`
    filling     changes for images with their masks, from whichever source
    paste       a defect cut out of one picture and set into another without a seam
    prior       a Stable Diffusion and what moves it towards a dataset's defects
    methods     what a method owes the recipe: `by_perturbation`, `by_prior`, `by_paste`
    keeping     what a synthetic set is on disk: images, masks, labels, preview
    synthesize  the recipe that makes a synthetic set: `<run>/synthetic`; start reading here
    collect     the recipe that keeps outlines found in production as masks: `<run>/masks`

Knows nothing of how detectors or anomaly models are trained.
"""
