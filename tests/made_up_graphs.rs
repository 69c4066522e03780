//! Graphs whose dimension of rows, and whose dependence between rows, are known: found right, or refused; never wrong.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float32Builder, ListBuilder, RecordBatch};
use datafusion::arrow::datatypes::Float32Type;
use datafusion::prelude::SessionContext;
use datafusion_predict::native::model::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use prost::Message;

/// Values of the last dimension.
const WIDTH: usize = 3;

/// How a graph names its first two dimensions.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Names {
    /// The rows are `batch`, the others `time`.
    Named,
    /// The rows are `batch`, the others have a fixed size.
    FixedTime,
    /// Neither has a name.
    None,
}

/// A factor that all rows of a run share.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Factor {
    None,
    /// `k []`
    Scalar,
    /// `k [1]`
    One,
}

/// A graph over `x [a, b, 3]` that gives `y` of the same shape.
#[derive(Debug, Clone, Copy)]
struct Graph {
    /// Which of the first two dimensions is that of the rows.
    rows: usize,
    names: Names,
    /// Along which of the first two dimensions each value depends on the others.
    mixes: [bool; 2],
    /// How: by a mean that is added, or by a sum of those before.
    by_sum: bool,
    time: usize,
    factor: Factor,
}

impl Graph {
    fn onnx(&self) -> Vec<u8> {
        let dimension = |value| Dimension { value, denotation: String::new() };
        let dims = (0..2).map(|axis| match (self.names, axis == self.rows) {
            (Names::None, _) => dimension(None),
            (_, true) => dimension(Some(DimensionValue::Param("batch".into()))),
            (Names::Named, false) => dimension(Some(DimensionValue::Param("time".into()))),
            (Names::FixedTime, false) => dimension(Some(DimensionValue::Value(self.time as i64))),
        });
        let dim: Vec<_> = dims.chain([dimension(Some(DimensionValue::Value(WIDTH as i64)))]).collect();
        let value = |name: &str, dim: &[Dimension]| ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                value: Some(TypeValue::Tensor(TensorTypeProto {
                    elem_type: 1,
                    shape: Some(TensorShapeProto { dim: dim.to_vec() }),
                })),
                denotation: String::new(),
            }),
            ..Default::default()
        };
        let node = |operator: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>| NodeProto {
            op_type: operator.into(),
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..Default::default()
        };
        let mut nodes = vec![];
        let mut last = "x".to_owned();
        for axis in (0..2).filter(|axis| self.mixes[*axis]) {
            let (mixed, next) = (format!("m{axis}"), format!("a{axis}"));
            let ints = |name: &str, ints| AttributeProto { name: name.into(), r#type: 7, ints, ..Default::default() };
            let int = |name: &str, i| AttributeProto { name: name.into(), r#type: 2, i: Some(i), ..Default::default() };
            let attributes = vec![ints("axes", vec![axis as i64]), int("keepdims", 1)];
            nodes.push(node(if self.by_sum { "ReduceSum" } else { "ReduceMean" }, &[&last], &mixed, attributes));
            nodes.push(node("Add", &[&last, &mixed], &next, vec![]));
            last = next;
        }
        let mut input = vec![value("x", &dim)];
        if self.factor != Factor::None {
            let one = [dimension(Some(DimensionValue::Value(1)))];
            input.push(value("k", if self.factor == Factor::One { &one } else { &[] }));
            nodes.push(node("Mul", &[&last, "k"], "scaled", vec![]));
            last = "scaled".to_owned();
        }
        nodes.push(node("Tanh", &[&last], "y", vec![]));
        let graph = GraphProto { node: nodes, input, output: vec![value("y", &dim)], ..Default::default() };
        // Of operator set 11 reductions take their axes as attributes.
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 11 }];
        ModelProto { ir_version: Some(7), graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec()
    }

    /// What a row of `time` steps gives alone, where `mixes` says whether its steps depend on each other.
    fn expected(&self, number: usize, row: &[[f32; WIDTH]], mixes: bool) -> Vec<f64> {
        let mut sums = [0.0_f64; WIDTH];
        for step in row {
            sums.iter_mut().zip(step).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let count = if self.by_sum { 1.0 } else { row.len() as f64 };
        let factor = if self.factor == Factor::None { 1.0 } else { f64::from(factor_of(number)) };
        let mixed = |k: usize| if mixes { sums[k] / count } else { 0.0 };
        row.iter()
            .flat_map(|step| (0..WIDTH).map(|k| (factor * (f64::from(step[k]) + mixed(k))).tanh()).collect::<Vec<_>>())
            .collect()
    }

    /// The dimension along which rows are independent, if names or trials can tell it; an error if it is to be refused.
    fn found_rows(&self) -> Result<(usize, bool), ()> {
        match self.names {
            Names::Named | Names::FixedTime => Ok((self.rows, !self.mixes[self.rows])),
            Names::None => match self.mixes {
                [false, _] => Ok((0, true)),
                [true, false] => Ok((1, true)),
                [true, true] => Err(()),
            },
        }
    }
}

fn table(rows: &[Vec<[f32; WIDTH]>]) -> RecordBatch {
    let mut lists = ListBuilder::new(ListBuilder::new(Float32Builder::new()));
    for row in rows {
        for step in row {
            lists.values().values().append_slice(step);
            lists.values().append(true);
        }
        lists.append(true);
    }
    let factors = Float32Array::from_iter_values((0..rows.len()).map(factor_of));
    let columns = [("x", Arc::new(lists.finish()) as ArrayRef), ("k", Arc::new(factors) as ArrayRef)];
    RecordBatch::try_from_iter(columns).expect("columns")
}

/// The factor of a row: rows of a batch differ.
fn factor_of(row: usize) -> f32 {
    [0.5, 2.0, 1.0][row % 3]
}

async fn check(graph: Graph, rows: Vec<Vec<[f32; WIDTH]>>, batch_size: usize) -> Result<(), String> {
    let context = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, graph.onnx()).expect("a file");
    context.register_batch("t", table(&rows)).expect("a table");
    context.predict_sql(&format!("SET predict.batch_size = {batch_size}")).await.expect("a setting");
    let created = context.predict_sql(&format!("CREATE MODEL m FROM '{}'", path.display())).await;
    let created = match (created, graph.found_rows()) {
        (Err(error), Err(())) if error.to_string().contains("can't be told") => return Ok(()),
        (Err(error), _) => return Err(format!("refused: {error}")),
        (Ok(_), Err(())) => return Err("accepted, though its rows can't be told".to_owned()),
        (Ok(created), Ok(_)) => created.collect().await.expect("a row"),
    };
    let Ok((axis, independent)) = graph.found_rows() else { return Ok(()) };
    let said = created[0].column_by_name("rows_independent").expect("the column").as_boolean();
    if !said.is_valid(0) || said.value(0) != independent {
        return Err(format!("said to be independent: {said:?}, expected {independent}"));
    }
    if !independent {
        return Ok(());
    }
    let arguments = if graph.factor == Factor::None { "x" } else { "x, k" };
    let sql = format!("SELECT predict('m', {arguments}) AS p FROM t");
    let batches = context.predict_sql(&sql).await.map_err(|error| error.to_string())?;
    let batches = batches.collect().await.map_err(|error| error.to_string())?;
    let mut rows = rows.iter().enumerate();
    for batch in &batches {
        let column = batch.column(0).as_list::<i32>();
        for found in (0..column.len()).map(|row| column.value(row)) {
            let (number, row) = rows.next().ok_or("more rows than there are")?;
            let steps = found.as_list::<i32>();
            let found = steps.values().slice(steps.value_offsets()[0] as usize, row.len() * WIDTH);
            let expected = graph.expected(number, row, graph.mixes[1 - axis]);
            for (found, expected) in found.as_primitive::<Float32Type>().values().iter().zip(&expected) {
                if (f64::from(*found) - expected).abs() > 1e-5 {
                    return Err(format!("{found} instead of {expected}"));
                }
            }
        }
    }
    rows.next().map_or(Ok(()), |_| Err("rows are missing".to_owned()))
}

#[test]
fn rows_of_made_up_graphs_are_found_or_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let names = prop_oneof![Just(Names::Named), Just(Names::FixedTime), Just(Names::None)];
    let factors = prop_oneof![2 => Just(Factor::None), 1 => Just(Factor::Scalar), 1 => Just(Factor::One)];
    let graphs = (0..2usize, names, any::<[bool; 2]>(), any::<bool>(), 2..6usize, factors)
        .prop_map(|(rows, names, mixes, by_sum, time, factor)| Graph { rows, names, mixes, by_sum, time, factor });
    let step = proptest::array::uniform3(-1.0f32..1.0);
    let cases = (graphs, 1..9usize, 0..4usize).prop_flat_map(move |(graph, count, batch_size)| {
        let row = proptest::collection::vec(step.clone(), graph.time);
        (Just(graph), proptest::collection::vec(row, count), Just(batch_size))
    });
    let mut runner = TestRunner::new(Config { cases: 128, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&cases, |(graph, rows, batch_size)| {
        runtime.block_on(check(graph, rows, batch_size)).map_err(proptest::test_runner::TestCaseError::fail)
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}
