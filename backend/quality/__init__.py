"""Quality: what a quality engineer makes of counts and scores.

    spc         control charts: limits from a stable period, and where each subgroup lies against them
    rules       run rules on standardised values: violations as data
    episodes    violations that belong together: what somebody looks into once
    alarms      how many false alarms a chart will give in a month
    stages      limits that a person froze, and what a change of model does to them
    rates       good first time, defects per unit, PPM; how much to read to know a rate well enough
    targets     what a plant has set itself, and whether a shift met it
    alertness   what somebody wants to be told of: rules, conditions, one open alarm per cause
    periods     two periods side by side: the interval of their difference, and a sentence
    report      the shift report as one HTML file, with `report_tables` and charts of `drawings`
    truth       the true rate behind what the model says: from random reviews, or from a measured model
    reference   the inspector inspected: software check, imaging check, agreement of people

Pure arithmetic on arrays: knows nothing of pictures, of DuckDB or of pages. scipy is loaded inside the functions that need it,
for the dashboard's process has to paint before it counts.
"""
