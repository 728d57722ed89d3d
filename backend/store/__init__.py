"""DuckDB, and the only package that knows it. Everything in it is derived from run directories.

    schema.sql   the tables, commented
    database     one connection per process: cursors that keep to their thread, one writer at a time
    lake         the same for several plants, on DuckLake; plants: what each sees of the others; migration: from the file to there
    scan         what is new in run directories
    ingest       takes it in, exactly once; rebuild; forget
    calendar     the plant's time zone and shifts: from a moment to production day and shift
    facts        raw rows + decisions -> the verdict on each inspection; judging: by which rules; touched: which are judged again
    queries      what the plant's pages ask
    lines        normal, look or act, line by line; rises: by how much more than chance
    shifts       what a shift report is made of
    alerts       targets, rules and alarms as events; the newest shift that is over
    arrivals     lines that are planned to work and send nothing
    masters      readings of master parts
    annotations  what people noted at a moment, with its number
    named        parts that have a number of their own, for PPM
    archive      what is backed up of a data folder; restoring: how it comes back; vault: where backups lie; mounts: on what disk it lies
    sampling     units drawn at random for people to read, in strata that stand, and what they said
    labels       pictures that wait for boxes, and what was drawn on each
    shadow       the last days with another model, beside the record
    engineering  what the engineers' pages ask: batches, datasets, models
    comparison   finished trainings: which there are, their curves, who has looked at a test set
    contests     two of them, image by image on their common test set
    worth        one of them at each threshold: precision and recall, confusion, what is missed and rejected wrongly
    decisions    rules, reviews, notes and changes, as pages show them

Knows nothing of processes, recipes, pages or pictures.
"""
