"""DuckDB, and the only package that knows it. Everything in it is derived from run directories.

    schema.sql   the tables, commented
    database     one connection per process: cursors that keep to their thread, one writer at a time
    scan         what is new in run directories
    ingest       takes it in, exactly once; rebuild; forget
    calendar     the plant's time zone and shifts: from a moment to production day and shift
    facts        raw rows + decisions -> the verdict on each inspection
    queries      what the plant's pages ask
    lines        normal, look or act, line by line
    engineering  what the engineers' pages ask: batches, datasets, models
    decisions    rules, reviews, notes and changes, as pages show them

Knows nothing of processes, recipes, pages or pictures.
"""
