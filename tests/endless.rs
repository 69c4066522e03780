//! Models that never end: their runs stop with the statement, at the limit, or by a token, and give their cores back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    CancelToken, Engine, Error, ErrorKind, Executable, Model, PredictExt, PredictRuntime, PredictSql, PrepareRequest,
    Prepared, Result, RunContext, Tensor,
};

/// Nothing here takes this long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session with the model `rounds`, whose run takes as many rounds as the largest value.
async fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    let create = "CREATE MODEL rounds FROM 'tests/models/queries/rounds.onnx'";
    context.predict_sql(create).await.expect("its trial run takes no rounds");
    context
}

const ENDLESS: &str = "SELECT predict('rounds', value * 1000000000000) FROM generate_series(1, 4)";

/// Starts `sql`, drops it while it runs, and checks that the cores are free: another query gets them.
async fn drop_while_it_runs(context: &SessionContext, sql: &'static str) {
    let running = tokio::spawn({
        let context = context.clone();
        async move { context.predict_sql(sql).await?.collect().await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.is_finished(), "{sql}: {:?}", running.await);
    running.abort();
    for _ in 0..8 {
        let quick = context.predict_sql("SELECT predict('rounds', 1)").await.expect("a plan").collect();
        let rows = tokio::time::timeout(PATIENCE, quick).await.unwrap_or_else(|_| panic!("{sql}: cores are not free"));
        rows.expect("a round");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_statement_ends_its_runs_in_nodes_and_trials() {
    let context = session().await;
    drop_while_it_runs(&context, ENDLESS).await;
    drop_while_it_runs(&context, "CREATE MODEL forever FROM 'tests/models/queries/forever.onnx'").await;
    // A model that was not tried is tried when it is first called.
    let create = "CREATE MODEL forever FROM 'tests/models/queries/forever.onnx' OPTIONS (validate false)";
    context.predict_sql(create).await.expect("it is not run");
    drop_while_it_runs(&context, "SELECT predict('forever', value) FROM generate_series(1, 4)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_calls_that_stayed_functions() {
    let context = session().await;
    context.predict_sql("SET predict.extract = false").await.expect("an option");
    context.predict_sql("CREATE TABLE t AS SELECT value FROM generate_series(1, 4)").await.expect("a table");
    let delete = "DELETE FROM t WHERE predict('rounds', value * 1000000000000) > 0";
    for sql in [ENDLESS, delete] {
        let token = CancelToken::default();
        context.cancel_calls_with(token.clone());
        let running = tokio::spawn({
            let context = context.clone();
            async move { context.predict_sql(sql).await?.collect().await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!running.is_finished(), "{sql}");
        let start = Instant::now();
        token.cancel();
        let error = running.await.expect("no panic").expect_err("it was cancelled");
        assert!(start.elapsed() < Duration::from_secs(5), "{sql}: {:?}", start.elapsed());
        assert_eq!(Error::find(&error).map(Error::kind), Some(ErrorKind::Cancelled), "{sql}: {error}");
        context.cancel_calls_with(CancelToken::default());
    }
    let count = context.predict_sql("SELECT count(*) FROM t WHERE predict('rounds', 1) > 0").await.expect("a plan");
    assert_eq!(count.count().await.expect("rows"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_ends_each_run_and_try_predict_takes_it_for_no_rows_fault() {
    let context = session().await;
    let create = "CREATE OR REPLACE MODEL rounds FROM 'tests/models/queries/rounds.onnx' OPTIONS (max_run '100ms')";
    context.predict_sql(create).await.expect("its trial run takes no rounds");
    for extract in [true, false] {
        context.predict_sql(&format!("SET predict.extract = {extract}")).await.expect("an option");
        for sql in [ENDLESS.to_owned(), ENDLESS.replace("predict(", "try_predict(")] {
            let error =
                context.predict_sql(&sql).await.expect("a plan").collect().await.expect_err("it takes too long");
            let error = Error::find(&error).expect("an error of ours");
            assert_eq!(error.kind(), ErrorKind::RunTooLong, "{sql}, extract = {extract}: {error}");
        }
        let rows = context.predict_sql("SELECT predict('rounds', 3)").await.expect("a plan").collect().await;
        assert!(rows.is_ok(), "a short run is not ended: {rows:?}");
    }
}

/// An engine whose runs go on until they are cancelled.
#[derive(Debug, Default)]
struct Waiting {
    started: AtomicBool,
    cancelled: AtomicBool,
}

#[derive(Debug)]
struct WaitingEngine(Arc<Waiting>);

impl Engine for WaitingEngine {
    fn name(&self) -> &str {
        "waiting"
    }

    fn prepare(&self, _model: &Arc<Model>, _request: &PrepareRequest) -> Result<Prepared> {
        Ok(Prepared::Ready(self.0.clone()))
    }
}

impl Executable for Waiting {
    fn run(&self, _inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        self.started.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while !context.cancel.is_cancelled() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.cancelled.store(context.cancel.is_cancelled(), Ordering::SeqCst);
        Err(Error::new(ErrorKind::Cancelled, "the run was cancelled"))
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_run_is_told_when_nobody_waits_for_it() {
    for validate in [true, false] {
        let engine = Arc::new(Waiting::default());
        let runtime = PredictRuntime::builder().with_engine(Arc::new(WaitingEngine(engine.clone()))).build();
        let context = SessionContext::new().with_predict(Arc::new(runtime));
        let create =
            format!("CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx' OPTIONS (validate {validate})");
        let running = tokio::spawn(async move {
            context.predict_sql(&create).await?;
            context.predict_sql("SELECT predict('m', 1.0)").await // tried now, if it was not before
        });
        let until = |flag: fn(&Waiting) -> &AtomicBool| {
            let engine = engine.clone();
            async move {
                let start = Instant::now();
                while !flag(&engine).load(Ordering::SeqCst) {
                    assert!(start.elapsed() < PATIENCE / 2, "validate {validate}: {engine:?}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        until(|engine| &engine.started).await;
        running.abort();
        until(|engine| &engine.cancelled).await;
    }
}
