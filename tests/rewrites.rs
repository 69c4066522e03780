//! Any query gives the same rows with calls lifted into nodes as with the bare function.

use std::sync::Arc;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};

/// `P(x)` stands for a call of a model on one number.
const QUERIES: &[&str] = &[
    "SELECT id, P(x) FROM t WHERE P(x) > 2 AND id < 5 ORDER BY P(x)",
    "SELECT id FROM t WHERE P(x) > 2 OR g = 'a'",
    "SELECT id FROM t WHERE NOT (P(x) > 2) OR P(x) IS NULL",
    "SELECT P(x) + 1 AS a, P(x) + 1 AS b, P(P(x)) FROM t",
    "SELECT DISTINCT P(x) FROM t",
    "SELECT DISTINCT ON (g) g, P(x) FROM t ORDER BY g, P(x)",
    "SELECT P(x) AS x, x AS p FROM t",
    "SELECT a.id, b.id FROM t a JOIN t b ON P(a.x) = P(b.x)",
    "SELECT a.id, b.id FROM t a JOIN t b ON a.id = b.id AND P(a.x) < P(b.x) + 1",
    "SELECT a.id, b.id FROM t a LEFT JOIN t b ON a.id = b.id AND P(b.x) > 2",
    "SELECT a.id, b.id, P(b.x) FROM t a LEFT JOIN t b ON a.id = b.id + 1 AND P(a.x + b.x) > 2",
    "SELECT a.id, b.id FROM t a RIGHT JOIN t b ON a.id = b.id + 1 AND P(a.x) > 2",
    "SELECT a.id, b.id, P(a.x), P(b.x) FROM t a FULL JOIN t b ON P(a.x) = P(b.x) + 2",
    "SELECT id FROM t WHERE id IN (SELECT id FROM t WHERE P(x) > 2)",
    "SELECT id FROM t WHERE id NOT IN (SELECT id FROM t WHERE P(x) > 2)",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM t u WHERE u.g = t.g AND P(u.x) > P(t.x))",
    "SELECT id FROM t WHERE P(x) > (SELECT avg(P(x)) FROM t)",
    "SELECT g, sum(P(x)), count(*) FILTER (WHERE P(x) > 2) FROM t GROUP BY g HAVING max(P(x)) > 1",
    "SELECT P(x) > 2, count(*) FROM t GROUP BY 1",
    "SELECT P(x), g, count(*) FROM t GROUP BY CUBE (P(x), g)",
    "SELECT id, sum(P(x)) OVER (PARTITION BY g ORDER BY id) FROM t",
    "SELECT id, rank() OVER (ORDER BY P(x)) FROM t",
    "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY P(x), id) AS n FROM t) WHERE n <= 2",
    "SELECT CASE WHEN P(x) > 2 THEN P(x) WHEN x IS NULL THEN -1 ELSE P(-x) END FROM t",
    "SELECT CASE g WHEN 'a' THEN P(x) WHEN 'b' THEN P(x + 1) END FROM t",
    "SELECT CASE WHEN x <> 0 THEN P(10 / CAST(x AS INT)) END FROM t",
    "SELECT CASE WHEN x = 0 THEN 0 WHEN 10 / CAST(x AS INT) > 2 THEN CASE WHEN g = 'a' THEN P(x) ELSE P(x + 1) END END FROM t",
    "SELECT COALESCE(P(x), -1), NULLIF(P(x), 4), GREATEST(P(x), 1) FROM t",
    "SELECT P(x) FROM t UNION SELECT P(x + 1) FROM t",
    "SELECT P(x) FROM t INTERSECT SELECT P(x) FROM t WHERE id > 2",
    "SELECT P(x) FROM t EXCEPT SELECT P(x) FROM t WHERE id > 2",
    "WITH s AS (SELECT id, x, P(x) AS y FROM t WHERE P(x) > 1) SELECT a.y, P(b.x) FROM s a JOIN s b ON a.id = b.id",
    "WITH RECURSIVE r AS (SELECT 1.0 AS x UNION ALL SELECT P(x) FROM r WHERE x < 50) SELECT * FROM r",
    "WITH RECURSIVE r AS (SELECT P(x) AS x FROM t UNION ALL SELECT x + 1 FROM r WHERE x < 5) SELECT * FROM r",
    "WITH RECURSIVE r AS (SELECT x FROM t UNION SELECT x FROM r WHERE P(x) < 5) SELECT P(x) FROM r",
    "SELECT P(x) FROM t UNION ALL SELECT x FROM t",
    "SELECT id, P(x) FROM t UNION ALL SELECT id, 1 FROM t UNION ALL SELECT x, id FROM t",
    "SELECT P(x) FROM t UNION SELECT id FROM t",
    "SELECT id FROM t ORDER BY P(x) DESC NULLS LAST, id LIMIT 3 OFFSET 1",
    "SELECT id, p FROM (SELECT id, g, P(x) AS p FROM t) WHERE g = 'a' AND p > 1",
    "SELECT x, P(x) FROM (SELECT -x AS x FROM t) WHERE P(x) < 0",
    "SELECT array_agg(P(x) ORDER BY P(x)) FROM t WHERE x IS NOT NULL",
];

async fn rows(context: &SessionContext, sql: &str, extract: bool) -> Vec<String> {
    let set = format!("SET predict.extract = {extract}");
    context.predict_sql(&set).await.expect("an option");
    let frame = context.predict_sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let batches = frame.collect().await.unwrap_or_else(|error| panic!("{sql}, extract = {extract}: {error}"));
    let text = pretty_format_batches(&batches).expect("a table").to_string();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    if !sql.contains(" LIMIT ") {
        lines.sort();
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn lifted_calls_give_the_rows_of_bare_calls() {
    let config = SessionConfig::new().with_target_partitions(3).with_batch_size(2);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    for sql in [
        "CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'",
        "CREATE TABLE t AS SELECT * FROM (VALUES (1, 1.0, 'a'), (2, 2.0, 'b'), (3, 0.0, 'a'), (4, NULL, 'b'),
            (5, -3.5, NULL), (6, 2.0, 'a')) AS v(id, x, g)",
    ] {
        context.predict_sql(sql).await.expect(sql);
    }
    for query in QUERIES {
        let sql = query.replace("P(", "predict('m', ");
        let (lifted, bare) = (rows(&context, &sql, true).await, rows(&context, &sql, false).await);
        assert_eq!(lifted, bare, "{sql}");
        assert!(lifted.len() > 3, "{sql} gives rows");
    }
}
