//! An engine of one's own: `cargo run --example custom_engine`
//!
//! It runs graphs that consist of one `Identity` by handing the tensor back; any other model goes to the next engine.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use datafusion_predict::{
    Engine, Executable, Model, PredictExt, PredictRuntime, PredictSql, PrepareRequest, Prepared, Result, RunContext,
    Tensor,
};

#[derive(Debug)]
struct HandBack;

impl Engine for HandBack {
    fn name(&self) -> &str {
        "hand-back"
    }

    fn prepare(&self, model: &Arc<Model>, _request: &PrepareRequest) -> Result<Prepared> {
        Ok(match model.operators().find(|operator| *operator != "Identity") {
            Some(operator) => Prepared::Refused(format!("operator {operator}")),
            None => Prepared::Ready(Arc::new(HandBack)),
        })
    }
}

impl Executable for HandBack {
    fn run(&self, inputs: &[Tensor], _context: &RunContext) -> Result<Vec<Tensor>> {
        Ok(inputs.to_vec()) // shares the elements
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }
}

#[tokio::main]
async fn main() -> datafusion::error::Result<()> {
    let runtime = PredictRuntime::builder().with_engine(Arc::new(HandBack)).build();
    let ctx = SessionContext::new().with_predict(Arc::new(runtime));
    ctx.predict_sql("CREATE MODEL same FROM 'tests/models/types/identity_float.onnx'").await?;
    ctx.predict_sql("CREATE MODEL twice FROM 'tests/models/types/scalar_double.onnx'").await?;
    ctx.predict_sql("SHOW MODELS").await?.show().await?;
    ctx.predict_sql("SELECT predict('same', [1.0, 2.0, 3.0]), predict('twice', 21.0)").await?.show().await
}
