-- A job scores a lake, and the next night only what is new. Jobs need a catalog, where they are kept. From the repository's root:
--     datafusion-predict --catalog target/nightly/catalog --echo -f sql/scripts/nightly.sql

CREATE OR REPLACE MODEL progression FEATURES (age, sex, bmi, bp, s1, s2, s3, s4, s5, s6)
    FROM 'tests/models/sklearn/diabetes_forest.onnx';

-- The lake: a file for each day.
COPY (SELECT * FROM 'tests/models/sklearn/diabetes_forest.parquet' LIMIT 200) TO 'target/nightly/patients/monday.parquet';
COPY (SELECT * FROM 'tests/models/sklearn/diabetes_forest.parquet' OFFSET 200) TO 'target/nightly/patients/tuesday.parquet';
CREATE EXTERNAL TABLE patients STORED AS PARQUET LOCATION 'target/nightly/patients/';

-- The job: what is scored, where it goes, and what must be true of it before readers see it.
CREATE OR REPLACE JOB nightly AS
COPY (SELECT age, bmi, predict('progression', p.*) AS progression FROM patients p)
TO 'target/nightly/scores/' STORED AS PARQUET
CHECK (min(progression) > 0, avg(progression) BETWEEN 100 AND 200)
OPTIONS (split_size 1, on_file_error set_aside);

RUN JOB nightly;

-- Nothing is new, so nothing is scored.
RUN JOB nightly;

-- Another day, and a file that is none.
COPY (SELECT * FROM 'tests/models/sklearn/diabetes_forest.parquet' LIMIT 50) TO 'target/nightly/patients/wednesday.parquet';
COPY (SELECT 'not a file of patients' AS text) TO 'target/nightly/patients/torn.parquet' STORED AS CSV;
RUN JOB nightly;

-- What readers see, what could not be scored, and what each run did.
SELECT count(*) AS patients, round(avg(progression), 1) AS progression FROM job_output('nightly');
SELECT run, kind, error FROM predict.job_errors;
SELECT run, status, map_keys(models) AS models, splits, rows_in, rows_out, files_failed FROM predict.job_runs ORDER BY run;

-- Which model scored this file?
SELECT s.run, map_keys(r.models) AS models
FROM predict.job_splits s JOIN predict.job_runs r ON s.job = r.job AND s.run = r.run
WHERE s.path LIKE '%/wednesday.parquet';
