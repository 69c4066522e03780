//! From what a graph gives for the parts of a row, such as the tokens of a text, to what a call gives for the row.

use datafusion::arrow::array::StringArray;
use datafusion_predict_native::{ClassLabels, Dimension, ElementType, Tensor, TensorData, TensorSpec};

use super::outputs::SelectedOutput;
use crate::call::Pooling;
use crate::encode::OutputColumn;

/// What becomes of a graph's output.
#[derive(Debug, Clone)]
pub(super) enum Head {
    /// A vector for each text.
    Embedding { pooling: Pooling, normalize: bool },
    /// A score for each label; one alone is the text's.
    Scores(Activation),
    /// The label with the highest score, and that score.
    Best(Activation, Vec<String>),
}

/// How a classifier's numbers become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// Of labels of which one holds.
    Softmax,
    /// Of labels that hold or not, each for itself.
    Sigmoid,
    /// They are no probabilities.
    None,
}

/// What is wrong with a graph's output.
type Problem = String;

impl Head {
    /// The numbers of each text of a batch, one text after the other, from the graph's output for it; `lengths` are the tokens
    /// of the texts, which are padded behind.
    pub(super) fn of_batch(&self, output: &Tensor, lengths: &[usize]) -> Result<Vec<f32>, Problem> {
        let values = floats(&output.data)?;
        match (self, output.shape.as_slice()) {
            (_, [rows, ..]) if *rows != lengths.len() => Err(format!("has {rows} rows, expected {}", lengths.len())),
            (Self::Embedding { pooling: Pooling::None, .. } | Self::Scores(_) | Self::Best(..), [_, _]) => Ok(values),
            (Self::Embedding { pooling, .. }, [_, tokens, width]) if *pooling != Pooling::None => {
                Ok(pooled(&values, lengths, *tokens, *width, *pooling))
            }
            (_, shape) => Err(format!("has shape {shape:?}, which is not what it had when the model was created")),
        }
    }

    /// Makes the numbers of one text what they are to be, when those of all its parts are together.
    pub(super) fn finish(&self, values: &mut [f32]) {
        match self {
            Self::Embedding { normalize: true, .. } => normalized(values),
            Self::Embedding { .. } => {}
            Self::Scores(activation) | Self::Best(activation, _) => activation.apply(values),
        }
    }

    /// The outputs of a call: `values` are the numbers of its `rows` texts, one text after the other.
    pub(super) fn outputs(&self, values: Vec<f32>, rows: usize) -> Result<Vec<Tensor>, Problem> {
        let width = values.len().checked_div(rows).unwrap_or(0);
        let Self::Best(_, labels) = self else {
            let shape = match self {
                Self::Scores(_) if width == 1 => vec![rows],
                _ => vec![rows, width],
            };
            return Ok(vec![Tensor { shape, data: TensorData::Float32(values.into()) }]);
        };
        if rows > 0 && width != labels.len() {
            return Err(format!("has {width} scores for each row, but there are {} labels", labels.len()));
        }
        let best = values.chunks_exact(width.max(1)).map(|scores| {
            let first = (0, scores[0]);
            scores.iter().copied().enumerate().fold(first, |best, it| if it.1 > best.1 { it } else { best })
        });
        let (places, scores): (Vec<_>, Vec<_>) = best.unzip();
        let names = StringArray::from_iter_values(places.iter().map(|place| &labels[*place]));
        Ok(vec![
            Tensor { shape: vec![rows], data: TensorData::String(names) },
            Tensor { shape: vec![rows], data: TensorData::Float32(scores.into()) },
        ])
    }
}

impl Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
            Self::Softmax => {
                let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                values.iter_mut().for_each(|value| *value = (*value - most).exp());
                let sum: f32 = values.iter().sum();
                values.iter_mut().for_each(|value| *value /= sum);
            }
        }
    }
}

fn floats(data: &TensorData) -> Result<Vec<f32>, Problem> {
    Ok(match data {
        TensorData::Float32(values) => values.to_vec(),
        TensorData::Float64(values) => values.iter().map(|value| *value as f32).collect(),
        TensorData::Float16(values) => values.iter().map(|value| value.to_f32()).collect(),
        TensorData::BFloat16(values) => values.iter().map(|value| value.to_f32()).collect(),
        other => return Err(format!("holds {}, expected floats", other.element())),
    })
}

/// One vector for each text from those of its tokens: `values` has `tokens` vectors of `width` values for each text, of which
/// the first `lengths` are its own.
fn pooled(values: &[f32], lengths: &[usize], tokens: usize, width: usize, pooling: Pooling) -> Vec<f32> {
    let mut all = Vec::with_capacity(lengths.len() * width);
    for (text, length) in values.chunks_exact((tokens * width).max(1)).zip(lengths) {
        let own = || text.chunks_exact(width.max(1)).take(*length);
        let start = all.len();
        match pooling {
            Pooling::Cls => all.extend(own().next().unwrap_or_default()),
            Pooling::Last => all.extend(own().next_back().unwrap_or_default()),
            Pooling::Max => {
                all.resize(start + width, f32::NEG_INFINITY);
                own().for_each(|token| all[start..].iter_mut().zip(token).for_each(|(most, it)| *most = most.max(*it)));
            }
            Pooling::Mean | Pooling::None => {
                all.resize(start + width, 0.0);
                own().for_each(|token| all[start..].iter_mut().zip(token).for_each(|(sum, it)| *sum += it));
                let count = (*length).max(1) as f32;
                all[start..].iter_mut().for_each(|sum| *sum /= count);
            }
        }
        all.resize(start + width, 0.0); // a text without tokens has no direction
    }
    all
}

/// Divides a vector by its length; one that is all zeros has none.
fn normalized(values: &mut [f32]) {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        values.iter_mut().for_each(|value| *value /= length);
    }
}

/// The outputs of a call: what `head` makes of `width` numbers.
pub(super) fn outputs_of(head: &Head, width: Option<usize>, rows: Dimension) -> Vec<TensorSpec> {
    let output = |name: &str, element, width: Option<Dimension>| TensorSpec {
        name: name.to_owned(),
        element,
        shape: [rows.clone()].into_iter().chain(width).collect(),
    };
    let free = || Some(width.map_or(Dimension::Dynamic(None), Dimension::Fixed));
    match head {
        Head::Embedding { .. } => vec![output("embedding", ElementType::Float32, free())],
        Head::Scores(_) if width == Some(1) => vec![output("score", ElementType::Float32, None)],
        Head::Scores(_) => vec![output("scores", ElementType::Float32, free())],
        Head::Best(..) => {
            vec![output("label", ElementType::String, None), output("score", ElementType::Float32, None)]
        }
    }
}

/// The column that `output`, as runs have shown it, becomes.
pub(super) fn column(head: &Head, output: &SelectedOutput, labels: Option<&ClassLabels>) -> OutputColumn {
    let spec = output.spec();
    match head {
        Head::Embedding { .. } => OutputColumn::vector(&spec),
        _ => OutputColumn::new(&spec, labels.filter(|labels| OutputColumn::takes_labels(&spec, labels))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], values: Vec<f32>) -> Tensor {
        Tensor { shape: shape.to_vec(), data: TensorData::Float32(values.into()) }
    }

    #[test]
    fn padding_is_not_pooled() {
        let output = tensor(&[2, 3, 2], vec![1.0, 2.0, 3.0, 4.0, 9.0, 9.0, 5.0, 6.0, 9.0, 9.0, 9.0, 9.0]);
        for (pooling, expected) in [
            (Pooling::Mean, [2.0, 3.0, 5.0, 6.0]),
            (Pooling::Cls, [1.0, 2.0, 5.0, 6.0]),
            (Pooling::Max, [3.0, 4.0, 5.0, 6.0]),
            (Pooling::Last, [3.0, 4.0, 5.0, 6.0]),
        ] {
            let head = Head::Embedding { pooling, normalize: false };
            assert_eq!(head.of_batch(&output, &[2, 1]), Ok(expected.to_vec()), "{pooling}");
        }
        let head = Head::Embedding { pooling: Pooling::Mean, normalize: true };
        assert!(head.of_batch(&output, &[2]).is_err(), "another number of rows");
        let mut vector = [3.0, 4.0];
        head.finish(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
    }

    #[test]
    fn the_best_label_and_its_probability_are_given() {
        let head = Head::Best(Activation::Softmax, vec!["no".to_owned(), "yes".to_owned()]);
        let mut scores = [0.0, 3f32.ln()];
        head.finish(&mut scores);
        let outputs = head.outputs(scores.to_vec(), 1).expect("a label");
        assert_eq!(outputs[0].data, TensorData::String(StringArray::from(vec!["yes"])));
        let TensorData::Float32(score) = &outputs[1].data else { panic!("no score") };
        assert!((score[0] - 0.75).abs() < 1e-6);
        assert!(head.outputs(vec![1.0; 3], 1).is_err(), "three scores for two labels");
    }
}
