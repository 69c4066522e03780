-- A random forest tells irises apart. Run it from the repository's root:
--     datafusion-predict --echo -f sql/scripts/iris.sql

CREATE EXTERNAL TABLE irises STORED AS PARQUET LOCATION 'tests/models/sklearn/iris_forest.parquet';

-- The model's input is a matrix, so its features need names.
CREATE OR REPLACE MODEL iris FEATURES (sepal_length_cm, sepal_width_cm, petal_length_cm, petal_width_cm)
    FROM 'tests/models/sklearn/iris_forest.onnx';
SHOW MODELS;

-- Two outputs make a struct.
SELECT predict('iris', {sepal_length_cm: 5.1, sepal_width_cm: 3.5, petal_length_cm: 1.4, petal_width_cm: 0.2}) AS flower;

-- As a table: the columns of the data, and the model's outputs.
SELECT label, count(*) AS flowers, round(avg(petal_length_cm), 2) AS petal_length_cm
FROM ml_predict(model => 'iris', data => irises)
GROUP BY label
ORDER BY label;

-- The flowers that the forest is least sure of.
SELECT expected_label, label, round(array_max(probabilities), 2) AS sure
FROM ml_predict(model => 'iris', data => irises)
ORDER BY sure, label
LIMIT 5;
