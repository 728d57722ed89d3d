"""Diffspect: surface inspection, from image batches to trends.

The flow. A page or a command line submits a config; a worker process runs that config's recipe and fills
`runs/<run_id>/` under the data folder; the app process ingests the directory into DuckDB; charts query DuckDB.

    rundir      what a run directory holds and how it is written (the only thing that crosses the process border)
    config      one frozen config per recipe: the form, the command-line flags and job.json
    records     rows that cross from recipes to the store
    data        images and annotations in; snapshots; the demo plant
    diffusion   a denoising diffusion model of a dataset's images, and what its decoder sees
    teacher     those features kept small on disk, and brought into a detector
    detection   train and export a detector, alone or taught and distilled
    inspection  run a deployed model over images
    evaluation  metrics that agree with the published scorers
    store       DuckDB: ingest and queries
    jobs        submit, follow, cancel, resume; the supervisor and its workers; results for the pages
"""

__version__ = "0.1.0"
