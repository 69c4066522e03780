//! Operators that look at several elements of a row together.

use super::elementwise::numbers;
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Operand, Result, Scalar, Value, invalid, positions, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// The items of `value` in groups along `axes`, and the dimensions and rows of what has one item for each group.
fn groups(value: &Value, axes: &[usize], keep: bool) -> (Vec<Vec<Operand>>, Vec<usize>, Option<usize>) {
    let reduced = |axis: usize| axes.contains(&axis);
    let kept_dims: Vec<_> = value.dims.iter().enumerate().map(|(i, dim)| if reduced(i) { 1 } else { *dim }).collect();
    let strides = crate::builder::strides(&kept_dims);
    let mut groups = vec![vec![]; kept_dims.iter().product()];
    for (position, item) in positions(&value.dims).zip(&value.items) {
        let group: usize = (0..position.len()).filter(|axis| !reduced(*axis)).map(|i| position[i] * strides[i]).sum();
        groups[group].push(item.clone());
    }
    if keep {
        return (groups, kept_dims, value.rows);
    }
    let kept: Vec<_> = (0..value.rank()).filter(|axis| !reduced(*axis)).collect();
    let dims = kept.iter().map(|axis| value.dims[*axis]).collect();
    let rows = value.rows.and_then(|rows| kept.iter().position(|axis| *axis == rows));
    (groups, dims, rows)
}

#[derive(Debug, Clone, Copy)]
enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    SumSquare,
    L1,
    L2,
    Prod,
    LogSum,
    LogSumExp,
}

/// One output for each group of inputs of equal size.
#[derive(Debug)]
struct Reduce {
    reduction: Reduction,
    group: usize,
}

macro_rules! reduce_floats {
    ($self:expr, $rows:expr, $inputs:expr, $outputs:expr, $get:ident, $get_mut:ident, $native:ty) => {
        for (group, output) in $inputs.chunks_exact($self.group).zip($outputs) {
            let output = &mut output.$get_mut()[..$rows];
            let fold = |output: &mut [$native], start: $native, f: &dyn Fn($native, $native) -> $native| {
                output.fill(start);
                for input in group {
                    output.iter_mut().zip(input.$get()).for_each(|(sum, value)| *sum = f(*sum, *value));
                }
            };
            let then = |output: &mut [$native], f: &dyn Fn($native) -> $native| {
                output.iter_mut().for_each(|sum| *sum = f(*sum));
            };
            match $self.reduction {
                Reduction::Sum => fold(output, 0.0, &|sum, x| sum + x),
                Reduction::Mean => {
                    fold(output, 0.0, &|sum, x| sum + x);
                    then(output, &|sum| sum / $self.group as $native);
                }
                // NaN spreads, where ONNX Runtime may or may not pass over it.
                Reduction::Max => {
                    fold(output, <$native>::NEG_INFINITY, &|most, x| if x > most || x.is_nan() { x } else { most })
                }
                Reduction::Min => {
                    fold(output, <$native>::INFINITY, &|least, x| if x < least || x.is_nan() { x } else { least })
                }
                Reduction::SumSquare => fold(output, 0.0, &|sum, x| sum + x * x),
                Reduction::L1 => fold(output, 0.0, &|sum, x| sum + x.abs()),
                Reduction::L2 => {
                    fold(output, 0.0, &|sum, x| sum + x * x);
                    then(output, &<$native>::sqrt);
                }
                Reduction::Prod => fold(output, 1.0, &|product, x| product * x),
                Reduction::LogSum => {
                    fold(output, 0.0, &|sum, x| sum + x);
                    then(output, &<$native>::ln);
                }
                Reduction::LogSumExp => {
                    let mut most = vec![<$native>::NEG_INFINITY; $rows];
                    fold(&mut most, <$native>::NEG_INFINITY, &<$native>::max);
                    most.iter_mut().filter(|most| most.is_infinite()).for_each(|most| *most = 0.0);
                    output.fill(0.0);
                    for input in group {
                        let values = input.$get().iter().zip(&most);
                        output.iter_mut().zip(values).for_each(|(sum, (x, most))| *sum += (x - most).exp());
                    }
                    output.iter_mut().zip(&most).for_each(|(sum, most)| *sum = sum.ln() + most);
                }
            }
        }
    };
}

impl Kernel for Reduce {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        match inputs.first() {
            Some(Slice::F32(_)) => reduce_floats!(self, rows, inputs, outputs, f32s, f32s_mut, f32),
            Some(Slice::F64(_)) => reduce_floats!(self, rows, inputs, outputs, f64s, f64s_mut, f64),
            _ => {
                for (group, output) in inputs.chunks_exact(self.group).zip(outputs) {
                    for (row, to) in output.i64s_mut()[..rows].iter_mut().enumerate() {
                        let values = group.iter().map(|input| input.i64s()[row]);
                        *to = match self.reduction {
                            Reduction::Max => values.max().unwrap_or(i64::MIN),
                            Reduction::Min => values.min().unwrap_or(i64::MAX),
                            Reduction::Prod => values.fold(1, i64::wrapping_mul),
                            Reduction::SumSquare => values.fold(0, |sum, x| sum.wrapping_add(x.wrapping_mul(x))),
                            Reduction::L1 => values.fold(0, |sum, x| sum.wrapping_add(x.wrapping_abs())),
                            Reduction::Mean => values.fold(0, i64::wrapping_add) / self.group as i64,
                            _ => values.fold(0, i64::wrapping_add),
                        };
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn reduce(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let reduction = match node.operator() {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceProd" => Reduction::Prod,
        "ReduceLogSum" => Reduction::LogSum,
        _ => Reduction::LogSumExp,
    };
    let value = node.input(0)?;
    let kind = numbers(value)?;
    if kind == Kind::I64
        && (!matches!(value.element, ElementType::Int64)
            || matches!(reduction, Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp))
    {
        unsupported!("reduces {}", value.element);
    }
    let axes = match node.integers(1, "axes")? {
        Some(axes) if !axes.is_empty() => axes.into_iter().map(|axis| value.inner_axis(axis)).collect::<Result<_>>()?,
        _ if node.flag("noop_with_empty_axes", false) => match reduction {
            Reduction::Sum
            | Reduction::Mean
            | Reduction::Max
            | Reduction::Min
            | Reduction::Prod
            | Reduction::LogSumExp => return Ok(vec![value.clone()]),
            _ => unsupported!("takes each element for a group"),
        },
        _ => (0..value.rank()).map(|axis| value.inner_axis(axis as i64)).collect::<Result<Vec<_>>>()?,
    };
    let (groups, dims, rows) = groups(value, &axes, node.flag("keepdims", true));
    let group = groups.first().map_or(0, Vec::len);
    if group == 0 {
        unsupported!("reduces no elements");
    }
    let outputs = vec![kind; groups.len()];
    let items = builder.emit(Reduce { reduction, group }, &groups.concat(), &outputs)?;
    Ok(vec![value.with_items(dims, rows, items)])
}

/// The position of the greatest or the least of each group.
#[derive(Debug)]
struct ArgExtreme {
    greatest: bool,
    last: bool,
    group: usize,
}

impl Kernel for ArgExtreme {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        fn each<T: Copy + PartialOrd>(this: &ArgExtreme, columns: &[&[T]], to: &mut [i64]) {
            to.fill(0);
            let mut best = columns[0][..to.len()].to_vec();
            for (position, column) in columns.iter().enumerate().skip(1) {
                for ((to, best), value) in to.iter_mut().zip(&mut best).zip(*column) {
                    let beyond = if this.greatest { *value > *best } else { *value < *best };
                    if beyond || (this.last && *value == *best) {
                        (*to, *best) = (position as i64, *value);
                    }
                }
            }
        }
        for (group, output) in inputs.chunks_exact(self.group).zip(outputs) {
            let output = &mut output.i64s_mut()[..rows];
            match group[0] {
                Slice::F32(_) => each(self, &group.iter().map(|column| column.f32s()).collect::<Vec<_>>(), output),
                Slice::F64(_) => each(self, &group.iter().map(|column| column.f64s()).collect::<Vec<_>>(), output),
                Slice::I64(_) => each(self, &group.iter().map(|column| column.i64s()).collect::<Vec<_>>(), output),
            }
        }
        Ok(())
    }
}

pub(super) fn arg_extreme(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    numbers(value)?;
    let axis = value.inner_axis(node.int_or("axis", 0))?;
    let (groups, dims, rows) = groups(value, &[axis], node.flag("keepdims", true));
    let group = value.dims[axis];
    if group == 0 {
        invalid!("the greatest of no elements");
    }
    let greatest = node.operator() == "ArgMax";
    let kernel = ArgExtreme { greatest, last: node.flag("select_last_index", false), group };
    let items = builder.emit(kernel, &groups.concat(), &vec![Kind::I64; groups.len()])?;
    Ok(vec![Value { element: ElementType::Int64, dims, rows, items, texts: None }])
}

#[derive(Debug)]
struct Softmax {
    log: bool,
    group: usize,
}

impl Kernel for Softmax {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        macro_rules! each {
            ($get:ident, $get_mut:ident, $native:ty) => {
                for (group, outputs) in inputs.chunks_exact(self.group).zip(outputs.chunks_exact_mut(self.group)) {
                    let mut most = vec![<$native>::NEG_INFINITY; rows];
                    for input in group {
                        most.iter_mut().zip(input.$get()).for_each(|(most, x)| *most = most.max(*x));
                    }
                    let mut sum = vec![0.0; rows];
                    for (input, output) in group.iter().zip(outputs.iter_mut()) {
                        let output = &mut output.$get_mut()[..rows];
                        for (i, x) in input.$get().iter().enumerate() {
                            let shifted = x - most[i];
                            sum[i] += shifted.exp();
                            output[i] = if self.log { shifted } else { shifted.exp() };
                        }
                    }
                    for output in outputs {
                        for (output, sum) in output.$get_mut()[..rows].iter_mut().zip(&sum) {
                            *output = if self.log { *output - sum.ln() } else { *output / sum };
                        }
                    }
                }
            };
        }
        match inputs.first() {
            Some(Slice::F64(_)) => each!(f64s, f64s_mut, f64),
            _ => each!(f32s, f32s_mut, f32),
        }
        Ok(())
    }
}

pub(super) fn softmax(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let kind = numbers(value)?;
    if kind == Kind::I64 {
        invalid!("takes {}", value.element);
    }
    // Before version 13 it goes over all dimensions from the axis on.
    let axes: Vec<usize> = match node.opset {
        ..13 => {
            let first = value.axis(node.int_or("axis", 1))?;
            (first..value.rank()).map(|axis| value.inner_axis(axis as i64)).collect::<Result<_>>()?
        }
        _ => vec![value.inner_axis(node.int_or("axis", -1))?],
    };
    let (groups, ..) = groups(value, &axes, true);
    let group = groups.first().map_or(0, Vec::len);
    if group == 0 {
        unsupported!("takes no elements");
    }
    let kernel = Softmax { log: node.operator() == "LogSoftmax", group };
    let items = builder.emit(kernel, &groups.concat(), &vec![kind; value.items.len()])?;
    Ok(vec![ungrouped(value, &axes, items)])
}

/// `value` with other items, which come in the order of its groups along `axes`.
fn ungrouped(value: &Value, axes: &[usize], items: Vec<Operand>) -> Value {
    let (places, ..) = groups(&numbered(value), axes, true);
    let mut ordered = value.items.clone();
    for (place, item) in places.concat().iter().zip(items) {
        if let Some(Scalar::I64(place)) = place.constant() {
            ordered[*place as usize] = item;
        }
    }
    value.with_items(value.dims.clone(), value.rows, ordered)
}

/// Each element divided by its group's norm, where that is not zero.
#[derive(Debug)]
struct LpNormalize {
    absolute: bool,
    group: usize,
}

impl Kernel for LpNormalize {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        macro_rules! each {
            ($get:ident, $get_mut:ident) => {
                for (group, outputs) in inputs.chunks_exact(self.group).zip(outputs.chunks_exact_mut(self.group)) {
                    let mut norms = vec![0.0; rows];
                    for input in group {
                        for (norm, x) in norms.iter_mut().zip(input.$get()) {
                            *norm += if self.absolute { x.abs() } else { x * x };
                        }
                    }
                    if !self.absolute {
                        norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
                    }
                    for (input, output) in group.iter().zip(outputs) {
                        for ((to, x), norm) in output.$get_mut()[..rows].iter_mut().zip(input.$get()).zip(&norms) {
                            *to = if *norm == 0.0 { 0.0 } else { x / norm };
                        }
                    }
                }
            };
        }
        match inputs.first() {
            Some(Slice::F64(_)) => each!(f64s, f64s_mut),
            _ => each!(f32s, f32s_mut),
        }
        Ok(())
    }
}

pub(super) fn lp_normalization(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let kind = numbers(value)?;
    if kind == Kind::I64 {
        invalid!("takes {}", value.element);
    }
    let axis = value.inner_axis(node.int_or("axis", -1))?;
    let absolute = match node.int_or("p", 2) {
        1 => true,
        2 => false,
        other => invalid!("p is {other}"),
    };
    if value.dims[axis] == 0 {
        unsupported!("takes no elements");
    }
    let (groups, ..) = groups(value, &[axis], true);
    let kernel = LpNormalize { absolute, group: value.dims[axis] };
    let items = builder.emit(kernel, &groups.concat(), &vec![kind; value.items.len()])?;
    Ok(vec![ungrouped(value, &[axis], items)])
}

/// A value of the same form whose items are their own positions.
fn numbered(value: &Value) -> Value {
    let items = (0..value.items.len() as i64).map(|item| Operand::Constant(Scalar::I64(item))).collect();
    value.with_items(value.dims.clone(), value.rows, items)
}

pub(super) fn cumulative_sum(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let kind = numbers(value)?;
    let axis = match node.input(1)?.integers()?.as_slice() {
        [axis] => value.inner_axis(*axis)?,
        _ => invalid!("takes one axis"),
    };
    if node.flag("exclusive", false) || node.flag("reverse", false) {
        unsupported!("a sum that is exclusive or reverse");
    }
    if kind == Kind::I64 && value.element != ElementType::Int64 {
        unsupported!("takes {}", value.element);
    }
    let mut items = value.items.clone();
    let stride = value.strides()[axis];
    for (item, position) in positions(&value.dims).enumerate() {
        if position[axis] > 0 {
            let pair = [items[item - stride].clone(), items[item].clone()];
            let sum = Reduce { reduction: Reduction::Sum, group: 2 };
            items[item] = builder.emit(sum, &pair, &[kind])?.remove(0);
        }
    }
    Ok(vec![value.with_items(value.dims.clone(), value.rows, items)])
}

#[expect(clippy::eq_op, reason = "NaN of any type, integers too, is what differs from itself")]
fn is_nan<T: PartialEq + Copy>(x: T) -> bool {
    x != x
}

/// The greatest or least `k` of the inputs and their positions.
#[derive(Debug)]
struct TopK {
    k: usize,
    largest: bool,
}

impl Kernel for TopK {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let (values, places) = outputs.split_at_mut(self.k);
        let mut order: Vec<usize> = vec![];
        macro_rules! each {
            ($get:ident, $get_mut:ident) => {
                for row in 0..rows {
                    order.clear();
                    order.extend(0..inputs.len());
                    order.sort_by(|a, b| {
                        let (a, b) = (inputs[*a].$get()[row], inputs[*b].$get()[row]);
                        // NaN is the greatest.
                        let order = a.partial_cmp(&b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)));
                        if self.largest { order.reverse() } else { order }
                    });
                    for (i, place) in order.iter().take(self.k).enumerate() {
                        values[i].$get_mut()[row] = inputs[*place].$get()[row];
                        places[i].i64s_mut()[row] = *place as i64;
                    }
                }
            };
        }
        match inputs.first() {
            Some(Slice::F32(_)) => each!(f32s, f32s_mut),
            Some(Slice::F64(_)) => each!(f64s, f64s_mut),
            _ => each!(i64s, i64s_mut),
        }
        Ok(())
    }
}

pub(super) fn top_k(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let kind = numbers(value)?;
    let axis = value.inner_axis(node.int_or("axis", -1))?;
    if axis + 1 != value.rank() {
        unsupported!("works along another axis than the last");
    }
    let k = match node.optional(1) {
        Some(k) => k.integers()?.first().copied(),
        None => node.int("k"),
    };
    let size = value.dims[axis];
    let Some(k) = k.and_then(|k| usize::try_from(k).ok()).filter(|k| *k <= size) else {
        invalid!("asks for more than {size} elements");
    };
    let (groups, mut dims, _) = groups(value, &[axis], true);
    dims[axis] = k;
    let (mut values, mut places) = (vec![], vec![]);
    for group in groups {
        let kinds = [vec![kind; k], vec![Kind::I64; k]].concat();
        let kernel = TopK { k, largest: node.flag("largest", true) };
        let mut outputs = builder.emit(kernel, &group, &kinds)?;
        places.extend(outputs.split_off(k));
        values.extend(outputs);
    }
    let positions =
        Value { element: ElementType::Int64, dims: dims.clone(), rows: value.rows, items: places, texts: None };
    Ok(vec![value.with_items(dims, value.rows, values), positions])
}
