-- Models in SQL, from a Parquet file to a scored Parquet file. Run it from the repository's root:
--     datafusion-predict --echo -f sql/scripts/demo.sql

-- Patients, one row each. A view names the columns that matter here.
CREATE EXTERNAL TABLE measurements STORED AS PARQUET LOCATION 'tests/models/sklearn/diabetes_pipeline.parquet';
CREATE VIEW patients AS
    SELECT row_number() OVER () AS id, age, sex, bmi, bp, glucose_band FROM measurements;

-- A scikit-learn pipeline (imputing, scaling, one-hot encoding, logistic regression), exported to ONNX.
-- Of its outputs we want one number: the probability of class 1, a fast progression of the disease.
CREATE OR REPLACE MODEL progression FROM 'tests/models/sklearn/diabetes_pipeline.onnx'
    OPTIONS (output 'probabilities', class '1');

-- Filter: a model is called like any other function, and finds its features among the columns by their names.
SELECT id, age, sex, bmi, round(predict('progression', p.*), 3) AS risk
FROM patients p
WHERE age < 40 AND predict('progression', p.*) > 0.7
ORDER BY risk DESC
LIMIT 5;

-- Aggregate: how the risk is spread over ages. The model fills in an age that is missing.
SELECT CASE WHEN isnan(age) THEN 'unknown' WHEN age < 40 THEN 'under 40' WHEN age < 60 THEN '40 to 59' ELSE 'from 60' END
           AS ages,
       count(*) AS patients,
       round(avg(predict('progression', p.*)), 3) AS mean_risk,
       count(*) FILTER (WHERE predict('progression', p.*) > 0.7) AS at_risk
FROM patients p
GROUP BY ages
ORDER BY mean_risk;

-- Join: the risk decides who gets which care.
CREATE TABLE care AS
    SELECT * FROM (VALUES ('none', 0.0, 0.4), ('check-up', 0.4, 0.7), ('treatment', 0.7, 1.01)) v (plan, low, high);
SELECT plan, count(*) AS patients, round(min(risk), 3) AS lowest, round(max(risk), 3) AS highest
FROM (SELECT id, predict('progression', p.*) AS risk FROM patients p) scored
JOIN care ON risk >= low AND risk < high
GROUP BY plan
ORDER BY lowest;

-- The plan: PredictExec scores each row once, however often the query names the prediction.
EXPLAIN SELECT age, predict('progression', m.*) AS risk FROM measurements m WHERE predict('progression', m.*) > 0.7;

-- Write: all patients with their risk, as Parquet.
COPY (SELECT p.*, predict('progression', p.*) AS risk FROM patients p) TO 'target/demo/scored.parquet';

-- Read it again, with no model: the five patients at the highest risk.
SELECT id, age, sex, bmi, bp, glucose_band, round(risk, 3) AS risk
FROM 'target/demo/scored.parquet'
ORDER BY risk DESC, id
LIMIT 5;
