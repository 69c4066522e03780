//! Operators that only move elements: they rename columns.

use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Operand, Result, Scalar, Value, axis_of, check_size, invalid, positions, strides, unsupported};
use crate::tensor::ElementType;

pub(super) fn identity(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    if node.outputs() > 1 || node.optional(2).is_some() {
        unsupported!("drops out as it does in training");
    }
    Ok(vec![node.input(0)?.clone()])
}

pub(super) fn constant(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let list = |element, items: Vec<Scalar>| Value::constant(element, vec![items.len()], items);
    let value = if let Some(value) = node.tensor("value")? {
        value
    } else if let Some(value) = node.float("value_float") {
        Value::constant(ElementType::Float32, vec![], vec![Scalar::F32(value)])
    } else if let Some(value) = node.int("value_int") {
        Value::constant(ElementType::Int64, vec![], vec![Scalar::I64(value)])
    } else if let Some(value) = node.text("value_string") {
        Value::constant(ElementType::String, vec![], vec![Scalar::Text(value.into())])
    } else if node.attribute("value_floats").is_some() {
        list(ElementType::Float32, node.floats("value_floats").iter().map(|value| Scalar::F32(*value)).collect())
    } else if node.attribute("value_ints").is_some() {
        list(ElementType::Int64, node.ints("value_ints").iter().map(|value| Scalar::I64(*value)).collect())
    } else if node.attribute("value_strings").is_some() {
        list(ElementType::String, node.texts("value_strings").into_iter().map(Scalar::Text).collect())
    } else {
        unsupported!("a constant of another kind");
    };
    Ok(vec![value])
}

/// A dimension as a graph computes with it.
#[derive(Clone, Copy, PartialEq)]
enum Size {
    Rows,
    Fixed(i64),
}

fn sizes(value: &Value) -> Result<Vec<Size>> {
    let size = |item: &Operand| match item {
        Operand::Constant(Scalar::I64(size)) => Some(Size::Fixed(*size)),
        Operand::Constant(Scalar::Rows) => Some(Size::Rows),
        _ => None,
    };
    match value.items.iter().map(size).collect() {
        Some(sizes) if value.rows.is_none() => Ok(sizes),
        _ => unsupported!("takes a shape that is not constant"),
    }
}

/// Dimensions and the rows' place among them; at most one is that of the rows.
fn form(sizes: &[Size]) -> Result<(Vec<usize>, Option<usize>)> {
    let dim = |size: &Size| match size {
        Size::Rows => Some(1),
        Size::Fixed(size) => usize::try_from(*size).ok(),
    };
    let Some(dims) = sizes.iter().map(dim).collect::<Option<Vec<_>>>() else { invalid!("a negative dimension") };
    check_size(&dims)?;
    let mut rows = sizes.iter().enumerate().filter(|(_, size)| **size == Size::Rows).map(|(axis, _)| axis);
    let first = rows.next();
    if rows.next().is_some() {
        unsupported!("rows in two dimensions");
    }
    Ok((dims, first))
}

pub(super) fn constant_of_shape(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (dims, rows) = form(&sizes(node.input(0)?)?)?;
    let value = node.tensor("value")?;
    let value = value.unwrap_or_else(|| Value::constant(ElementType::Float32, vec![1], vec![Scalar::F32(0.0)]));
    let Some(item) = value.items.first().cloned() else { invalid!("an empty value") };
    let items = vec![item; dims.iter().product()];
    Ok(vec![value.with_items(dims, rows, items)])
}

pub(super) fn shape(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let rank = value.rank() as i64;
    let bound = |name, default: i64| {
        let at = node.int_or(name, default);
        (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let size = |axis: usize| match value.rows {
        Some(rows) if rows == axis => Scalar::Rows,
        _ => Scalar::I64(value.dims[axis] as i64),
    };
    let sizes: Vec<_> = (start..end.max(start)).map(size).collect();
    Ok(vec![Value::constant(ElementType::Int64, vec![sizes.len()], sizes)])
}

pub(super) fn concat(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let values: Vec<&Value> = node.inputs.iter().flatten().collect();
    let Some(first) = values.iter().find(|value| value.rows.is_some()).or(values.first()).copied() else {
        invalid!("has no inputs");
    };
    let axis = match node.int("axis") {
        Some(axis) => first.inner_axis(axis)?,
        None => first.inner_axis(1)?,
    };
    for value in &values {
        if value.rows != first.rows {
            unsupported!("puts rows beside what is none");
        }
        let others_equal =
            value.rank() == first.rank() && (0..first.rank()).all(|i| i == axis || value.dims[i] == first.dims[i]);
        if !others_equal || value.element != first.element {
            invalid!("can't put {:?} of {} beside {:?} of {}", value.dims, value.element, first.dims, first.element);
        }
        if value.texts.is_some() {
            unsupported!("puts texts that are computed side by side");
        }
    }
    let mut dims = first.dims.clone();
    dims[axis] = values.iter().map(|value| value.dims[axis]).sum();
    check_size(&dims)?;
    // Items before the axis, and of each value those from the axis on.
    let before: usize = first.dims[..axis].iter().product();
    let mut items = vec![];
    for block in 0..before {
        for value in &values {
            let size: usize = value.dims[axis..].iter().product();
            items.extend_from_slice(&value.items[block * size..(block + 1) * size]);
        }
    }
    Ok(vec![first.with_items(dims, first.rows, items)])
}

pub(super) fn reshape(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let target = match node.optional(1) {
        Some(shape) => sizes(shape)?,
        None => node.ints("shape").iter().map(|size| Size::Fixed(*size)).collect(),
    };
    let copies_zero = !node.flag("allowzero", false);
    let target = target.into_iter().enumerate().map(|(axis, size)| match size {
        Size::Fixed(0) if copies_zero => match value.dims.get(axis) {
            Some(_) if value.rows == Some(axis) => Ok(Size::Rows),
            Some(dim) => Ok(Size::Fixed(*dim as i64)),
            None => invalid!("copies dimension {axis} of {}", value.rank()),
        },
        size => Ok(size),
    });
    let mut target = target.collect::<Result<Vec<_>>>()?;
    if let Some(inferred) = target.iter().position(|size| *size == Size::Fixed(-1)) {
        let others = target.iter().enumerate().filter(|(axis, _)| *axis != inferred).map(|(_, size)| match size {
            Size::Rows => Some(1),
            Size::Fixed(size) => usize::try_from(*size).ok(),
        });
        let others = others
            .collect::<Option<Vec<_>>>()
            .and_then(|sizes| sizes.into_iter().try_fold(1usize, |product, size| product.checked_mul(size)));
        let Some(others) = others else { invalid!("a shape with two sizes to be found") };
        let takes_rows = value.rows.is_some() && !target.contains(&Size::Rows);
        target[inferred] = match takes_rows {
            true if others == value.items.len() => Size::Rows,
            true => unsupported!("mixes rows and columns"),
            false if others > 0 && value.items.len().is_multiple_of(others) => {
                Size::Fixed((value.items.len() / others) as i64)
            }
            false => invalid!("{} elements in rows of {others}", value.items.len()),
        };
    }
    let (dims, rows) = form(&target)?;
    if dims.iter().product::<usize>() != value.items.len() || rows.is_some() != value.rows.is_some() {
        unsupported!("makes {dims:?} of {:?}", value.dims);
    }
    if let (Some(to), Some(from)) = (rows, value.rows) {
        let before = |dims: &[usize]| dims.iter().product::<usize>();
        if before(&dims[..to]) != before(&value.dims[..from]) {
            unsupported!("mixes rows and columns");
        }
    }
    Ok(vec![value.reshaped(dims, rows)])
}

pub(super) fn flatten(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let axis = match node.int_or("axis", 1) {
        axis if axis == value.rank() as i64 => value.rank(),
        axis => value.axis(axis)?,
    };
    let dims = vec![value.dims[..axis].iter().product(), value.dims[axis..].iter().product()];
    let rows = match value.rows {
        None => None,
        Some(rows) if rows < axis && dims[0] == 1 => Some(0),
        Some(rows) if rows >= axis && dims[1] == 1 => Some(1),
        Some(_) => unsupported!("mixes rows and columns"),
    };
    Ok(vec![value.reshaped(dims, rows)])
}

/// Where the rows are, once the dimensions that `kept` leaves out are gone.
fn rows_among(rows: Option<usize>, kept: &[usize]) -> Option<usize> {
    rows.and_then(|rows| kept.iter().position(|axis| *axis == rows))
}

pub(super) fn squeeze(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let axes = match node.integers(1, "axes")? {
        Some(axes) => axes.into_iter().map(|axis| value.inner_axis(axis)).collect::<Result<Vec<_>>>()?,
        None => (0..value.rank()).filter(|axis| value.dims[*axis] == 1 && value.rows != Some(*axis)).collect(),
    };
    if let Some(axis) = axes.iter().find(|axis| value.dims[**axis] != 1) {
        invalid!("dimension {axis} is {}, not 1", value.dims[*axis]);
    }
    let kept: Vec<_> = (0..value.rank()).filter(|axis| !axes.contains(axis)).collect();
    let dims = kept.iter().map(|axis| value.dims[*axis]).collect();
    Ok(vec![value.reshaped(dims, rows_among(value.rows, &kept))])
}

pub(super) fn unsqueeze(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let Some(axes) = node.integers(1, "axes")? else { invalid!("has no axes") };
    let rank = value.rank() + axes.len();
    check_size(&vec![1; rank])?;
    let axes = axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<Result<Vec<_>>>()?;
    let mut old = 0..value.rank();
    let (mut dims, mut rows) = (vec![], None);
    for axis in 0..rank {
        match axes.contains(&axis) {
            true => dims.push(1),
            false => {
                let Some(from) = old.next() else { invalid!("an axis twice") };
                if value.rows == Some(from) {
                    rows = Some(axis);
                }
                dims.push(value.dims[from]);
            }
        }
    }
    if old.next().is_some() {
        invalid!("an axis twice");
    }
    Ok(vec![value.reshaped(dims, rows)])
}

pub(super) fn transpose(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let order = match node.attribute("perm") {
        Some(perm) => perm.ints.iter().map(|axis| value.axis(*axis)).collect::<Result<Vec<_>>>()?,
        None => (0..value.rank()).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..value.rank()).collect::<Vec<_>>() {
        invalid!("{order:?} is no order of {} dimensions", value.rank());
    }
    let dims: Vec<_> = order.iter().map(|axis| value.dims[*axis]).collect();
    let own = value.strides();
    let from = |position: Vec<usize>| position.iter().zip(&order).map(|(i, axis)| i * own[*axis]).sum::<usize>();
    let items = positions(&dims).map(|position| value.items[from(position)].clone()).collect();
    Ok(vec![value.with_items(dims, rows_among(value.rows, &order), items)])
}

/// The items at `picks` along `axis`, which is not that of the rows.
pub(super) fn pick(value: &Value, axis: usize, picks: &[usize]) -> Vec<Operand> {
    let after: usize = value.dims[axis + 1..].iter().product();
    let block = value.dims[axis] * after;
    let blocks: usize = value.dims[..axis].iter().product();
    let starts = (0..blocks).flat_map(|b| picks.iter().map(move |pick| b * block + pick * after));
    starts.flat_map(|start| value.items[start..start + after].iter().cloned()).collect()
}

/// Positions of elements, from the end where they are negative.
pub(super) fn positions_of(indices: &[i64], size: usize) -> Result<Vec<usize>> {
    let position = |index: &i64| {
        let from_start = if *index < 0 { index.checked_add(size as i64)? } else { *index };
        usize::try_from(from_start).ok().filter(|position| *position < size)
    };
    match indices.iter().map(position).collect() {
        Some(positions) => Ok(positions),
        None => invalid!("a position outside 0 to {}", size.saturating_sub(1)),
    }
}

pub(super) fn gather(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (value, indices) = (node.input(0)?, node.input(1)?);
    if indices.rows.is_some() {
        return super::category::gather_by_row(builder, value, indices, value.axis(node.int_or("axis", 0))?);
    }
    let axis = value.axis(node.int_or("axis", 0))?;
    if value.rows == Some(axis) {
        unsupported!("picks rows");
    }
    let picks = positions_of(&indices.integers()?, value.dims[axis])?;
    let dims = [&value.dims[..axis], &indices.dims, &value.dims[axis + 1..]].concat();
    check_size(&dims)?;
    let rows = value.rows.map(|rows| if rows > axis { rows + indices.rank() - 1 } else { rows });
    Ok(vec![value.with_items(dims, rows, pick(value, axis, &picks))])
}

pub(super) fn slice(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let (Some(starts), Some(ends)) = (node.integers(1, "starts")?, node.integers(2, "ends")?) else {
        invalid!("has no starts or ends");
    };
    let axes = node.integers(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = node.integers(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|len| *len != starts.len()) {
        invalid!("starts, ends, axes and steps differ in number");
    }
    check_size(&vec![1; starts.len()])?; // an axis for each
    let mut result = value.clone();
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = result.axis(axis)?;
        let size = result.dims[axis] as i64;
        if result.rows == Some(axis) {
            // All rows, as converters write it.
            if start == 0 && step == 1 && end >= i64::from(i32::MAX) {
                continue;
            }
            unsupported!("picks rows");
        }
        if step == 0 {
            invalid!("a step of 0");
        }
        let from_end = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let start = from_end(start).clamp(low.max(0), high.max(0));
        // Backwards, the greatest numbers stand for the beginning.
        let to_the_beginning = step < 0 && [i64::from(i32::MAX), i64::MAX].contains(&end);
        let end = if to_the_beginning { -1 } else { from_end(end).clamp(low, high) };
        let mut picks = vec![];
        let mut at = start;
        while (step > 0 && at < end) || (step < 0 && at > end && size > 0) {
            picks.push(at as usize);
            at = at.saturating_add(step);
        }
        let items = pick(&result, axis, &picks);
        let mut dims = result.dims.clone();
        dims[axis] = picks.len();
        result = result.with_items(dims, result.rows, items);
    }
    Ok(vec![result])
}

pub(super) fn split(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let axis = value.inner_axis(node.int_or("axis", 0))?;
    let size = value.dims[axis];
    let parts = match node.integers(1, "split")? {
        Some(parts) => parts,
        None => {
            let count = node.outputs().max(1);
            let each = size.div_ceil(count);
            (0..count).map(|part| each.min(size.saturating_sub(part * each)) as i64).collect()
        }
    };
    let mut start = 0usize;
    let mut results = vec![];
    for part in parts {
        let Some(end) = usize::try_from(part).ok().and_then(|part| start.checked_add(part)).filter(|end| *end <= size)
        else {
            invalid!("parts that are no {size} together");
        };
        let picks: Vec<_> = (start..end).collect();
        let mut dims = value.dims.clone();
        dims[axis] = picks.len();
        results.push(value.with_items(dims, value.rows, pick(value, axis, &picks)));
        start = end;
    }
    Ok(results)
}

pub(super) fn expand(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let (dims, rows) = form(&sizes(node.input(1)?)?)?;
    let shape = Value { rows, items: vec![], dims: dims.clone(), ..value.clone() };
    let (dims, rows) = crate::builder::broadcast_form(&[value, &shape])?;
    let items = value.broadcast(&dims).into_iter().map(|item| value.items[item].clone()).collect();
    Ok(vec![value.with_items(dims, rows, items)])
}

pub(super) fn tile(_: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let repeats = node.input(1)?.integers()?.into_iter().map(|times| usize::try_from(times).ok());
    let Some(repeats) = repeats.collect::<Option<Vec<_>>>() else { invalid!("repeats a negative number of times") };
    if repeats.len() != value.rank() {
        invalid!("{} repeats of {} dimensions", repeats.len(), value.rank());
    }
    if value.rows.is_some_and(|rows| repeats[rows] != 1) {
        unsupported!("repeats rows");
    }
    let dims: Vec<usize> = value.dims.iter().zip(&repeats).map(|(dim, times)| dim.saturating_mul(*times)).collect();
    check_size(&dims)?;
    let own = strides(&value.dims);
    let from = |position: Vec<usize>| {
        position.iter().zip(&value.dims).zip(&own).map(|((i, dim), stride)| i % dim * stride).sum::<usize>()
    };
    let items = positions(&dims).map(|position| value.items[from(position)].clone()).collect();
    Ok(vec![value.with_items(dims, value.rows, items)])
}
