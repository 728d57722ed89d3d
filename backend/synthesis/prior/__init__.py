"""The prior: a Stable Diffusion that draws defects, moved towards a dataset in two spaces, its words and its network.

Tai et al. 2024 (StableSDG, arXiv 2405.01872): tokens are learned for the classes, then low-rank changes of the network, and
drawing starts from noised real pictures.

    stable       one class for every Stable Diffusion 1.x or 2.x, our own small one included; finding it; start reading here
      checkpoint   its files, in a folder or from the hub
      words        what a dataset and a class are called in a prompt
    draw         pictures from noise, from pictures, or inside masks
      fit          a picture's size and the network's
      levels       grey levels that drifted
    adapt        the recipe that moves a prior towards a dataset: `<run>/adapter`
      examples     which pictures it may see;  material: as latents;  steps: the optimiser's
      tokens, lora the two spaces
    surface      the recipe that trains a small prior of our own: `<run>/prior`
      drawn, flaws surfaces and defects nobody photographed;  supply, bank: these and real ones, with captions
      learner, tokenizer, autoencoder, denoiser: its parts, and how they learn

Nothing here reaches for the hub unless a person named a checkpoint on it.
"""
