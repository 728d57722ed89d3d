-- The store: everything here is derived from run directories; delete the file and `python -m backend rebuild` makes it again.
-- Raw tables hold the rows of Parquet parts (see backend/records.py) plus the run and part they came from.
-- Derived tables (facts, defects, and their roll-ups) hold the verdict under today's rules; `facts.derive` makes them again where a rule
-- changes.
-- No keys on the raw tables: a run's (run_id, part) guards them, and an index of millions of ids would cost more memory than the rows.

CREATE TABLE about (version INTEGER, digest VARCHAR);       -- which program wrote this file

-- One row per run that has ended. Live state is in the run's directory, never here. Inline runs are in `events`.
CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY, recipe VARCHAR, plant VARCHAR, state VARCHAR, message VARCHAR, attempt INTEGER,
    created_at TIMESTAMPTZ, started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ,
    config JSON, result JSON, code_version VARCHAR, "by" VARCHAR
);
-- at_s: seconds that the run had worked by then; NULL in runs of an older program.
CREATE TABLE metrics (run_id VARCHAR, step INTEGER, name VARCHAR, value DOUBLE, at_s DOUBLE);

-- Which parts are in: the guard that makes ingest exactly-once.
CREATE TABLE ingested (run_id VARCHAR, part VARCHAR, rows BIGINT, PRIMARY KEY (run_id, part));
-- Which parts could not be read, and why; tried again when the program starts.
CREATE TABLE set_aside (run_id VARCHAR, part VARCHAR, reason VARCHAR);

-- Raw rows. The columns before run_id are those of records.SCHEMAS, in meaning and order.
CREATE TABLE inspections (
    inspection_id BIGINT, plant VARCHAR, image_id VARCHAR, file_name VARCHAR, unit_id VARCHAR,
    line VARCHAR, product VARCHAR, lot VARCHAR, camera VARCHAR,
    captured_at TIMESTAMPTZ, captured_source VARCHAR, ingested_at TIMESTAMPTZ, width INTEGER, height INTEGER,
    model_id VARCHAR, runtime VARCHAR, counted BOOLEAN, not_counted_why VARCHAR, kept BOOLEAN, kept_share FLOAT,
    run_id VARCHAR, part VARCHAR
);
CREATE TABLE detections (
    inspection_id BIGINT, class_name VARCHAR, confidence FLOAT, x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT,
    run_id VARCHAR, part VARCHAR
);
-- The maps themselves stay in the parts: kilobytes a picture that one question at a time reads one of.
CREATE TABLE anomalies (
    inspection_id BIGINT, model_id VARCHAR, anomaly_score FLOAT, side INTEGER, run_id VARCHAR, part VARCHAR
);
-- What another model found in pictures of the last days. No verdict is kept: it is asked for, by the rules in force (see store/shadow.py).
CREATE TABLE shadows (
    plant VARCHAR, image_id VARCHAR, model_id VARCHAR, why VARCHAR,
    boxes STRUCT(class_name VARCHAR, confidence FLOAT, x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT)[], run_id VARCHAR, part VARCHAR
);
-- Of pictures of master parts: how bright and how sharp they are. They never count in any rate.
CREATE TABLE masters (inspection_id BIGINT, piece VARCHAR, brightness FLOAT, sharpness FLOAT, run_id VARCHAR, part VARCHAR);
-- Inspections whose kept picture was let go by retention (jobs/letting_go.py); they count as before.
CREATE TABLE let_go (inspection_id BIGINT, "at" TIMESTAMPTZ, run_id VARCHAR, part VARCHAR);
CREATE TABLE refused (file_name VARCHAR, reason VARCHAR, run_id VARCHAR, part VARCHAR);
CREATE TABLE snapshots (
    snapshot_id VARCHAR, name VARCHAR, layout VARCHAR, created_at TIMESTAMPTZ, classes VARCHAR[], seed BIGINT,
    splits_from VARCHAR, images BIGINT, labels BIGINT, refused BIGINT, test_set_id VARCHAR, run_id VARCHAR, part VARCHAR
);
CREATE TABLE snapshot_images (
    snapshot_id VARCHAR, image_id VARCHAR, file_name VARCHAR, split VARCHAR, origin VARCHAR, parent VARCHAR,
    generator_run VARCHAR, width INTEGER, height INTEGER, group_id VARCHAR, phash VARCHAR, run_id VARCHAR, part VARCHAR
);
CREATE TABLE labels (
    snapshot_id VARCHAR, image_id VARCHAR, class_name VARCHAR, x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT, source VARCHAR,
    run_id VARCHAR, part VARCHAR
);
-- The demo model, which comes with the program and not from a run, has run_id ''.
CREATE TABLE models (
    model_id VARCHAR, name VARCHAR, kind VARCHAR, created_at TIMESTAMPTZ, snapshot_id VARCHAR, imgsz INTEGER,
    classes VARCHAR[], metrics VARCHAR, settings VARCHAR, run_id VARCHAR, part VARCHAR
);
-- Each look of a detector at val and test: its training's own, or a later `score` run's. What it found on test, box by box.
CREATE TABLE looks (
    model_id VARCHAR, snapshot_id VARCHAR, test_set_id VARCHAR, split VARCHAR, images INTEGER, good_images INTEGER, boxes INTEGER,
    looked_at TIMESTAMPTZ, classes VARCHAR[], thresholds FLOAT[], run_id VARCHAR, part VARCHAR
);
CREATE TABLE predictions (
    model_id VARCHAR, split VARCHAR, image_id VARCHAR, class_name VARCHAR, confidence FLOAT, x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT,
    hits INTEGER, hit_box INTEGER, run_id VARCHAR, part VARCHAR
);
CREATE TABLE model_thresholds (model_id VARCHAR, class_name VARCHAR, threshold FLOAT, run_id VARCHAR, part VARCHAR);

-- What people decided: inline runs (event_id = run_id) and the rows of `history` parts (run_id/part/row).
-- In force = not undone; where two speak of the same thing, the later `at` wins, then the larger event_id.
-- An undo is final: it is not undone itself, the decision is made again.
CREATE TABLE events (
    event_id VARCHAR, run_id VARCHAR, recipe VARCHAR, plant VARCHAR, "at" TIMESTAMPTZ, config JSON, "by" VARCHAR, undone BOOLEAN
);

-- The verdict: one row per inspection, with corrections applied. captured_local is plant time, shift_start the plant time at which
-- its shift (outside all shifts: the time after one, or its production day) began, weekday 1 (Monday) to 7 that of the production day.
-- unit: a hash of line, product, lot and unit_id, so that counting units is cheap; the same serial number in another lot is another unit;
-- image: a hash of image_id, by which the same picture is found again.
-- top_confidence: of the most confident raw detection, also below its threshold; top_class: of the most confident one that rejects, else
-- of that raw one; margin: how near the nearest detection is to its threshold. anomaly_model_id, anomaly_score: NULL where no anomaly
-- model looked; is_unusual: NULL too where there is no threshold or nobody wants to know. It enters nothing that counts as defective.
CREATE TABLE facts (
    inspection_id BIGINT, run_id VARCHAR, plant VARCHAR, image_id VARCHAR, image UBIGINT, file_name VARCHAR, unit_id VARCHAR, unit UBIGINT,
    line VARCHAR, product VARCHAR, lot VARCHAR, camera VARCHAR,
    captured_at TIMESTAMPTZ, captured_source VARCHAR, ingested_at TIMESTAMPTZ,
    captured_local TIMESTAMP, production_day DATE, shift VARCHAR, shift_start TIMESTAMP, hour TINYINT, weekday TINYINT,
    width INTEGER, height INTEGER, model_id VARCHAR, kept BOOLEAN, counted BOOLEAN, why VARCHAR,
    is_defective BOOLEAN, defects INTEGER, minor INTEGER, top_class VARCHAR, top_confidence FLOAT, margin FLOAT, review VARCHAR,
    anomaly_model_id VARCHAR, anomaly_score FLOAT, is_unusual BOOLEAN
);
-- Detections that pass their threshold and minimum size and are not ignored; action: minor | reject.
CREATE TABLE defects (
    inspection_id BIGINT, class_name VARCHAR, confidence FLOAT, action VARCHAR, x1 FLOAT, y1 FLOAT, x2 FLOAT, y2 FLOAT
);

-- Roll-ups of facts and defects, see store/tally.py: what the pages count. A cell is an hour of plant time (hour_start) within one shift,
-- line, product, lot and model; `cell` its hash; view: one | each | all. looked: units that an anomaly model judged; unusual, disagree: of
-- these; named: units with a number of their own; bad, odd, odd_good: pictures that are defective, unusual, unusual though no detection rejects them.
CREATE TABLE tallies (
    cell UBIGINT, view VARCHAR, camera VARCHAR, plant VARCHAR, counted BOOLEAN, line VARCHAR, product VARCHAR, lot VARCHAR, model_id VARCHAR,
    production_day DATE, shift VARCHAR, shift_start TIMESTAMP, hour_start TIMESTAMP, hour TINYINT, weekday TINYINT,
    units BIGINT, defective BIGINT, defects BIGINT, named BIGINT, named_defective BIGINT, looked BIGINT, unusual BIGINT, disagree BIGINT,
    pictures BIGINT, bad_pictures BIGINT, odd_pictures BIGINT, odd_good_pictures BIGINT
);
-- units, pictures: with a defect of the class.
CREATE TABLE kind_tallies (
    cell UBIGINT, view VARCHAR, camera VARCHAR, class_name VARCHAR, action VARCHAR, plant VARCHAR, counted BOOLEAN, line VARCHAR,
    product VARCHAR, lot VARCHAR, model_id VARCHAR, production_day DATE, shift VARCHAR, shift_start TIMESTAMP, hour_start TIMESTAMP,
    hour TINYINT, weekday TINYINT,
    units BIGINT, defects BIGINT, named BIGINT, pictures BIGINT, bad_pictures BIGINT, odd_pictures BIGINT, odd_good_pictures BIGINT
);
-- Pictures of units that lie in several cells; kinds: their defects, of which there may be several of a class.
CREATE TABLE spread (
    unit UBIGINT, inspection_id BIGINT, camera VARCHAR, named BOOLEAN, captured_at TIMESTAMPTZ, defects INTEGER, is_defective BOOLEAN,
    is_unusual BOOLEAN,
    kinds STRUCT(class_name VARCHAR, "action" VARCHAR, boxes BIGINT)[],
    plant VARCHAR, counted BOOLEAN, line VARCHAR, product VARCHAR, lot VARCHAR, model_id VARCHAR,
    production_day DATE, shift VARCHAR, shift_start TIMESTAMP, hour_start TIMESTAMP, hour TINYINT, weekday TINYINT
);

-- The policy in force for each product and class ('' = all). A NULL sets nothing: the next wider policy, then the model, decides.
-- On the class 'unusual' also for each model_id, since the scores of two anomaly models share no scale; '' = any model, which is what a
-- policy without a model_id says. Policies on other classes speak of confidences and hold for every model.
CREATE VIEW policies AS
SELECT plant, coalesce((config->>'$.product'), '') AS product, coalesce((config->>'$.class_name'), '') AS class_name,
       (config->>'$.action') AS action, try_cast((config->>'$.threshold') AS FLOAT) AS threshold,
       try_cast((config->>'$.min_side') AS FLOAT) AS min_side,
       CASE WHEN (config->>'$.class_name') = 'unusual' THEN coalesce((config->>'$.model_id'), '') ELSE '' END AS model_id, "at", event_id
FROM events WHERE recipe = 'policy' AND NOT undone
QUALIFY row_number() OVER (
    PARTITION BY plant, coalesce((config->>'$.product'), ''), coalesce((config->>'$.class_name'), ''),
                 CASE WHEN (config->>'$.class_name') = 'unusual' THEN coalesce((config->>'$.model_id'), '') ELSE '' END
    ORDER BY "at" DESC, event_id DESC) = 1;

-- One threshold per model and class, also where two runs delivered the same model.
CREATE VIEW thresholds AS
SELECT model_id, class_name, min(threshold) AS threshold FROM model_thresholds GROUP BY ALL;
