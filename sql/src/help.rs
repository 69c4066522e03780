//! What `\?` and `\h` say.

/// The commands.
pub(crate) const COMMANDS: &str = r"\d                    tables
\d NAME               columns of a table
\models               models
\timing [on|off]      whether times are shown
\format [NAME]        how results are written: table, csv, tsv, json, ndjson, automatic
\pset format [NAME]   the same as \format
\quiet [on|off]       whether results are all that is shown
\i FILE               runs the SQL in a file
\h [STATEMENT]        statements, and how one is written
\?                    this list
\q                    quits, as Ctrl-D does
";

/// The statements about models and jobs, and the functions that call them.
pub(crate) const MODELS: &str = "\
CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name [FEATURES (a, b, …)] FROM 'uri' [OPTIONS (key value, …)]
DROP MODEL [IF EXISTS] name[/version]
ALTER MODEL name SET ALIAS alias TO version [, …]     ALTER MODEL name DROP ALIAS alias
ROLLBACK MODEL name [TO version]
ALTER MODEL name SET TRAFFIC (v3 90, v4 10) [BY feature]     ALTER MODEL name DROP TRAFFIC
ALTER MODEL name[/version] SET TAG tag = 'value' [, …]     ALTER MODEL name UNSET TAG tag
COMMENT ON MODEL name[/version] IS 'text'
SHOW MODELS     SHOW VERSIONS IN MODEL name     DESCRIBE MODEL name[/version]     SHOW DEVICES
SELECT … FROM predict.models, predict.versions, predict.features, predict.history, predict.loaded

CREATE [OR REPLACE] JOB [IF NOT EXISTS] name AS COPY (query) TO 'uri' [STORED AS format] [PARTITIONED BY (a, …)]
    [CHECK (condition, …)] [KEEP n] [OPTIONS (key value, …)]
RUN JOB name [FULL]     RETRY JOB name ERRORS     CANCEL JOB name     ROLLBACK JOB name [TO generation]
ALTER JOB name SET (key value, …)     DROP JOB [IF EXISTS] name     SHOW JOBS     DESCRIBE JOB name
SELECT … FROM job_output('name'), predict.jobs, predict.job_runs, predict.job_splits, predict.job_errors

CREATE FUNCTION name(a TYPE, …) RETURNS TYPE LANGUAGE onnx AS 'uri'

predict('name', a, b, …)             by position
predict('name', {feature: a, …})     by name
predict('name', t.*)                 the columns of t that the model names
try_predict('name', …)               NULL for a row that can't be scored
predict_error('name', …)             why it can't
predict('name@alias', …)  predict('name/3', …)
embed('name', text)  classify('name', text or picture)  rerank('name', query, text)
token_count('name', text)  tokenize('name', text)  chunk_text('name', text[, max_tokens[, overlap]])
files('photos/*.jpg')  read_blob(uri)  try_read_blob(uri)  image_info(bytes)
cosine_similarity(a, b)  vector_avg(vector)  softmax(scores)  argmax(scores)  top_k(scores, k)
SELECT * FROM ml_predict(model => 'name', data => t)
SELECT * FROM ml_compare(old => 'name/3', new => 'name/4', data => t)
";

/// Whether `\h statement` asks for [`MODELS`].
pub(crate) fn is_about_models(statement: &str) -> bool {
    let statement = statement.to_lowercase();
    ["model", "predict", "rollback", "versions", "alias", "traffic", "ml_", "job"]
        .iter()
        .any(|word| statement.contains(word))
}
