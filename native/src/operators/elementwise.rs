//! What operators share that compute each element from those at the same place.

use crate::builder::ProgramBuilder;
use crate::builder::{Operand, Result, Scalar, Value, broadcast_form, invalid, kind_of, unsupported};
use crate::program::{Kernel, Kind};
use crate::tensor::ElementType;

/// A value of `element` with an item for each of `items`, each computed by `kernel`.
pub(super) fn map(
    builder: &mut ProgramBuilder,
    kernel: impl Kernel + Clone + 'static,
    operands: &[&Value],
    element: ElementType,
) -> Result<Value> {
    let (dims, rows) = broadcast_form(operands)?;
    let places: Vec<_> = operands.iter().map(|value| value.broadcast(&dims)).collect();
    let count = dims.iter().product();
    let arguments = |item: usize| -> Vec<Operand> {
        operands.iter().zip(&places).map(|(value, places)| value.items[places[item]].clone()).collect()
    };
    let kind = kind_of(element)?;
    let mut items = vec![Operand::Constant(Scalar::I64(0)); count];
    let (mut computed, mut inputs) = (vec![], vec![]);
    for (item, result) in items.iter_mut().enumerate() {
        let arguments = arguments(item);
        if arguments.iter().all(|argument| argument.constant().is_some()) {
            *result = builder.emit(kernel.clone(), &arguments, &[kind])?.remove(0);
        } else {
            computed.push(item);
            inputs.extend(arguments);
        }
    }
    if !computed.is_empty() {
        let outputs = builder.emit(kernel, &inputs, &vec![kind; computed.len()])?;
        computed.into_iter().zip(outputs).for_each(|(item, output)| items[item] = output);
    }
    Ok(Value { element, dims, rows, items, texts: None })
}

pub(super) fn numbers(value: &Value) -> Result<Kind> {
    if value.texts.is_some() {
        unsupported!("computes with texts");
    }
    kind_of(value.element)
}

pub(super) fn same_type(a: &Value, b: &Value) -> Result<()> {
    if a.element != b.element {
        invalid!("takes {} and {}, which are not the same", a.element, b.element);
    }
    Ok(())
}

/// Integers as their type holds them.
pub(super) fn wrap(value: i64, element: ElementType) -> i64 {
    match element {
        ElementType::Int32 => (value as i32).into(),
        ElementType::Int16 => (value as i16).into(),
        ElementType::Int8 => (value as i8).into(),
        ElementType::UInt8 => (value as u8).into(),
        ElementType::UInt16 => (value as u16).into(),
        ElementType::UInt32 => (value as u32).into(),
        ElementType::Bool => (value != 0).into(),
        _ => value,
    }
}
