//! Operators that look values up: categories, labels, tables.

use std::sync::Arc;

use hashbrown::HashMap;

use super::cast::truncated;
use super::shape::{pick, positions_of};
use crate::builder::Node;
use crate::builder::{Operand, Result, Scalar, Value, check_size, invalid, kind_of, unsupported};
use crate::builder::{Origin, ProgramBuilder};
use crate::program::{Buffer, Kernel, Kind, Slice, TextTable, Texts};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// Positions that lie this close together are looked up in an array.
const MOST_SPAN: u64 = 1 << 16;

/// The number that stands for each of some numbers.
#[derive(Debug)]
enum Codes {
    /// By distance from the first number.
    Array {
        first: i64,
        codes: Arc<[i64]>,
    },
    Map(HashMap<i64, i64>),
}

impl Codes {
    fn new(pairs: impl Iterator<Item = (i64, i64)>, default: i64) -> Self {
        let mut map = HashMap::new();
        for (key, code) in pairs {
            map.entry(key).or_insert(code);
        }
        let (first, last) = (map.keys().min().copied().unwrap_or(0), map.keys().max().copied().unwrap_or(0));
        if first.abs_diff(last) >= MOST_SPAN {
            return Self::Map(map);
        }
        let codes = (first..=last).map(|key| map.get(&key).copied().unwrap_or(default)).collect();
        Self::Array { first, codes }
    }

    #[inline]
    fn get(&self, key: i64, default: i64) -> i64 {
        match self {
            Self::Array { first, codes } => {
                codes.get(key.wrapping_sub(*first) as u64 as usize).copied().unwrap_or(default)
            }
            Self::Map(map) => map.get(&key).copied().unwrap_or(default),
        }
    }
}

/// Numbers → the numbers that stand for them. Floats are cut to integers, as ONNX Runtime does.
#[derive(Debug)]
struct LookUp {
    codes: Codes,
    default: i64,
    /// If a number that is not among them is an error: what it is.
    unknown: Option<&'static str>,
}

/// What a category is that an encoder was not made for.
const UNKNOWN_CATEGORY: &str = "a category that the model does not know";

impl Kernel for LookUp {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (input, output) in inputs.iter().zip(outputs) {
            let output = &mut output.i64s_mut()[..rows];
            match input {
                Slice::I64(keys) => {
                    output.iter_mut().zip(*keys).for_each(|(to, key)| *to = self.codes.get(*key, self.default));
                }
                Slice::F32(keys) => output.iter_mut().zip(*keys).for_each(|(to, key)| {
                    *to = self.codes.get(truncated((*key).into()), self.default);
                }),
                Slice::F64(keys) => output.iter_mut().zip(*keys).for_each(|(to, key)| {
                    *to = self.codes.get(truncated(*key), self.default);
                }),
            }
            if let Some(unknown) = self.unknown.filter(|_| output.contains(&self.default)) {
                return Err(unknown.into());
            }
        }
        Ok(())
    }

    fn refused(&self, inputs: &[Slice<'_>]) -> Option<(usize, usize)> {
        let is_unknown = |key: i64| self.codes.get(key, self.default) == self.default;
        let row = |input: &Slice<'_>| match input {
            Slice::I64(keys) => keys.iter().position(|key| is_unknown(*key)),
            Slice::F32(keys) => keys.iter().position(|key| is_unknown(truncated((*key).into()))),
            Slice::F64(keys) => keys.iter().position(|key| is_unknown(truncated(*key))),
        };
        inputs.iter().enumerate().find_map(|(place, input)| Some((place, row(input)?)))
    }
}

/// A code that stands for nothing.
const NONE: i64 = -1;

/// Positions in a list → one column for each position, 1 where it is, else 0.
#[derive(Debug)]
struct OneHot {
    strict: bool,
}

impl Kernel for OneHot {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let codes = inputs[0].i64s();
        if self.strict && codes.contains(&NONE) {
            return Err(UNKNOWN_CATEGORY.into());
        }
        for (category, output) in outputs.iter_mut().enumerate() {
            let output = &mut output.f32s_mut()[..rows];
            output.iter_mut().zip(codes).for_each(|(to, code)| *to = f32::from(u8::from(*code == category as i64)));
        }
        Ok(())
    }

    fn refused(&self, inputs: &[Slice<'_>]) -> Option<(usize, usize)> {
        Some((0, inputs[0].i64s().iter().position(|code| *code == NONE)?))
    }
}

pub(super) fn one_hot_encoder(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let (ints, texts) = (node.ints("cats_int64s"), node.texts("cats_strings"));
    let strict = !node.flag("zeros", true);
    let count = if value.element == ElementType::String { texts.len() } else { ints.len() };
    if count == 0 {
        invalid!("has no categories for {}", value.element);
    }
    let dims: Vec<usize> = value.dims.iter().copied().chain([count]).collect();
    check_size(&dims)?;
    let codes = if value.element == ElementType::String {
        let pairs = texts.iter().enumerate().map(|(i, text)| (text.to_string(), i as i64));
        text_codes(builder, value, pairs.collect(), NONE)?
    } else {
        kind_of(value.element)?;
        let codes = Codes::new(last_positions(ints), NONE);
        let table = match &codes {
            // A table of weights is worth it where most of its places are taken.
            Codes::Array { first, codes } if codes.len() <= 4 * count + 64 => Some((*first, codes.clone())),
            _ => None,
        };
        let kernel = LookUp { codes, default: NONE, unknown: None };
        let codes = builder.emit(kernel, &value.items, &vec![Kind::I64; value.items.len()])?;
        for (code, item) in codes.iter().zip(&value.items) {
            if let (Operand::Register(source), Some((first, codes))) = (item, &table)
                && source.kind == Kind::I64
            {
                builder.set_origin(code, Origin::Code { source: *source, first: *first, codes: codes.clone() });
            }
        }
        codes
    };
    let mut items = vec![];
    for code in codes {
        let columns = builder.emit(OneHot { strict }, std::slice::from_ref(&code), &vec![Kind::F32; count])?;
        // What checks its categories has to be run.
        if let (Operand::Register(code), false) = (&code, strict) {
            for (category, column) in columns.iter().enumerate() {
                builder.set_origin(column, Origin::OneHot { code: *code, category, of: count });
            }
        }
        items.extend(columns);
    }
    Ok(vec![Value { element: ElementType::Float32, dims, rows: value.rows, items, texts: None }])
}

/// Of a key that is there twice, ONNX Runtime keeps the last position.
fn last_positions(keys: &[i64]) -> impl Iterator<Item = (i64, i64)> + '_ {
    keys.iter().enumerate().rev().map(|(position, key)| (*key, position as i64))
}

/// The numbers that stand for a value's texts.
fn text_codes(
    builder: &mut ProgramBuilder,
    value: &Value,
    codes: HashMap<String, i64>,
    default: i64,
) -> Result<Vec<Operand>> {
    let table = Arc::new(TextTable { codes, default });
    if let Some(texts) = &value.texts {
        let pairs = texts.iter().enumerate().map(|(i, text)| (i as i64, table.code(text)));
        let kernel = LookUp { codes: Codes::new(pairs, default), default, unknown: None };
        return builder.emit(kernel, &value.items, &vec![Kind::I64; value.items.len()]);
    }
    let code = |item: &Operand| match item {
        Operand::Text(column) => builder.look_up(*column, table.clone()),
        Operand::Constant(Scalar::Text(text)) => Ok(Operand::Constant(Scalar::I64(table.code(text)))),
        _ => unsupported!("computes with texts"),
    };
    value.items.iter().map(code).collect()
}

/// The position of a value among `keys`, by its bits; NaN is equal to NaN.
#[derive(Debug)]
struct FloatLookUp {
    codes: HashMap<u64, i64>,
}

fn float_bits(x: f64) -> u64 {
    if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() }
}

impl Kernel for FloatLookUp {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let code = |x: f64| self.codes.get(&float_bits(x)).copied().unwrap_or(NONE);
        for (input, output) in inputs.iter().zip(outputs) {
            let output = &mut output.i64s_mut()[..rows];
            match input {
                Slice::F32(x) => output.iter_mut().zip(*x).for_each(|(to, x)| *to = code((*x).into())),
                Slice::F64(x) => output.iter_mut().zip(*x).for_each(|(to, x)| *to = code(*x)),
                Slice::I64(x) => output.copy_from_slice(x),
            }
        }
        Ok(())
    }
}

/// What stands at a position in a table.
#[derive(Debug)]
struct Table<T> {
    values: Vec<T>,
    /// For a position outside.
    default: T,
}

macro_rules! table_kernel {
    ($native:ty, $get_mut:ident) => {
        impl Kernel for Table<$native> {
            fn run(
                &self,
                rows: usize,
                inputs: &[Slice<'_>],
                outputs: &mut [Buffer],
                _: &mut TreeScratch,
            ) -> Result<(), String> {
                for (input, output) in inputs.iter().zip(outputs) {
                    for (to, position) in output.$get_mut()[..rows].iter_mut().zip(input.i64s()) {
                        *to = self.values.get(*position as usize).copied().unwrap_or(self.default);
                    }
                }
                Ok(())
            }
        }
    };
}
table_kernel!(f32, f32s_mut);
table_kernel!(f64, f64s_mut);
table_kernel!(i64, i64s_mut);

/// Columns of what stands at the positions in `codes`; of texts, columns of their positions.
fn from_table(
    builder: &mut ProgramBuilder,
    codes: &[Operand],
    values: &[Scalar],
    default: Option<&Scalar>,
) -> Result<Vec<Operand>> {
    macro_rules! emit {
        ($variant:ident, $kind:ident, $zero:expr) => {{
            let get = |scalar: &Scalar| match scalar {
                Scalar::$variant(value) => Ok(*value),
                other => invalid!("a table of {other:?} and others"),
            };
            let table = Table {
                values: values.iter().map(get).collect::<Result<_>>()?,
                default: default.map(get).transpose()?.unwrap_or($zero),
            };
            builder.emit(table, codes, &vec![Kind::$kind; codes.len()])
        }};
    }
    match values.first().or(default) {
        Some(Scalar::F32(_)) => emit!(F32, F32, 0.0),
        Some(Scalar::F64(_)) => emit!(F64, F64, 0.0),
        Some(Scalar::I64(_)) => emit!(I64, I64, 0),
        // Texts are their positions already; the default comes after them.
        Some(Scalar::Text(_)) => {
            let table = Table { values: (0..values.len() as i64).collect(), default: values.len() as i64 };
            builder.emit(table, codes, &vec![Kind::I64; codes.len()])
        }
        Some(Scalar::Rows) | None => unsupported!("an empty table"),
    }
}

/// Maps each element by `keys` and `values`. NaN is a key only if `nan_is_key`.
fn map(
    builder: &mut ProgramBuilder,
    value: &Value,
    keys: &[Scalar],
    values: &[Scalar],
    default: Scalar,
    element: ElementType,
    nan_is_key: bool,
) -> Result<Value> {
    if keys.len() != values.len() {
        invalid!("{} keys and {} values", keys.len(), values.len());
    }
    let numbered = keys.iter().enumerate().map(|(position, key)| (key, position as i64));
    let kinds = vec![Kind::I64; value.items.len()];
    let positions = match value.element {
        ElementType::String => {
            let mut positions = HashMap::new();
            for (key, position) in numbered {
                let Scalar::Text(key) = key else { invalid!("keys that are no texts, for texts") };
                positions.entry(key.to_string()).or_insert(position);
            }
            text_codes(builder, value, positions, NONE)?
        }
        ElementType::Float32 | ElementType::Float64 => {
            let mut codes = HashMap::new();
            for (key, position) in numbered {
                let key = match key {
                    Scalar::F32(key) => (*key).into(),
                    Scalar::F64(key) => *key,
                    _ => invalid!("keys that are no floats, for floats"),
                };
                if nan_is_key || !key.is_nan() {
                    codes.entry(float_bits(key)).or_insert(position);
                }
            }
            builder.emit(FloatLookUp { codes }, &value.items, &kinds)?
        }
        other => {
            kind_of(other)?;
            let pair = |(key, position): (&Scalar, i64)| match key {
                Scalar::I64(key) => Ok((*key, position)),
                _ => invalid!("keys that are no integers, for integers"),
            };
            let pairs = numbered.map(pair).collect::<Result<Vec<_>>>()?;
            let kernel = LookUp { codes: Codes::new(pairs.into_iter(), NONE), default: NONE, unknown: None };
            builder.emit(kernel, &value.items, &kinds)?
        }
    };
    let items = from_table(builder, &positions, values, Some(&default))?;
    let texts = match element {
        ElementType::String => Some(texts_of(values.iter().chain([&default]))?),
        _ => None,
    };
    Ok(Value { element, items, texts, ..value.clone() })
}

fn texts_of<'a>(values: impl Iterator<Item = &'a Scalar>) -> Result<Texts> {
    let text = |scalar: &Scalar| match scalar {
        Scalar::Text(text) => Ok(text.clone()),
        other => invalid!("{other:?} among texts"),
    };
    values.map(text).collect()
}

pub(super) fn label_encoder(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if node.opset < 2 {
        let classes: Vec<_> = node.texts("classes_strings").into_iter().map(Scalar::Text).collect();
        let positions: Vec<_> = (0..classes.len() as i64).map(Scalar::I64).collect();
        let text = Scalar::Text(node.text_or("default_string", "_Unused").into());
        let int = Scalar::I64(node.int_or("default_int64", -1));
        return Ok(vec![match value.element {
            ElementType::String => map(builder, value, &classes, &positions, int, ElementType::Int64, false)?,
            _ => map(builder, value, &positions, &classes, text, ElementType::String, false)?,
        }]);
    }
    let (keys, _) = list(node, "keys")?;
    let (values, element) = list(node, "values")?;
    let default = match node.tensor("default_tensor")?.and_then(|tensor| tensor.items.first().cloned()) {
        Some(Operand::Constant(default)) => default,
        _ => match element {
            ElementType::String => Scalar::Text(node.text_or("default_string", "_Unused").into()),
            ElementType::Float32 => Scalar::F32(node.float_or("default_float", -0.0)),
            ElementType::Float64 => Scalar::F64(node.float_or("default_float", -0.0).into()),
            _ => Scalar::I64(node.int_or("default_int64", -1)),
        },
    };
    Ok(vec![map(builder, value, &keys, &values, default, element, node.opset >= 4)?])
}

/// The list `name`, in whichever of the attributes for its types it stands.
fn list(node: &Node<'_>, name: &str) -> Result<(Vec<Scalar>, ElementType)> {
    let attribute = |kind: &str| format!("{name}_{kind}");
    if let Some(tensor) = node.tensor(&attribute("tensor"))? {
        let items = tensor.items.iter().filter_map(|item| item.constant().cloned()).collect();
        return Ok((items, tensor.element));
    }
    if node.attribute(&attribute("int64s")).is_some() {
        let ints = node.ints(&attribute("int64s"));
        return Ok((ints.iter().map(|value| Scalar::I64(*value)).collect(), ElementType::Int64));
    }
    if node.attribute(&attribute("floats")).is_some() {
        let floats = node.floats(&attribute("floats"));
        return Ok((floats.iter().map(|value| Scalar::F32(*value)).collect(), ElementType::Float32));
    }
    let texts = node.texts(&attribute("strings"));
    Ok((texts.into_iter().map(Scalar::Text).collect(), ElementType::String))
}

pub(super) fn category_mapper(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    // Of a key that is there twice, ONNX Runtime keeps the last.
    let texts: Vec<_> = node.texts("cats_strings").into_iter().rev().map(Scalar::Text).collect();
    let ints: Vec<_> = node.ints("cats_int64s").iter().rev().map(|value| Scalar::I64(*value)).collect();
    let text = Scalar::Text(node.text_or("default_string", "_Unused").into());
    let int = Scalar::I64(node.int_or("default_int64", -1));
    Ok(vec![match value.element {
        ElementType::String => map(builder, value, &texts, &ints, int, ElementType::Int64, false)?,
        _ => map(builder, value, &ints, &texts, text, ElementType::String, false)?,
    }])
}

/// Values of a table of embeddings, at most: each of its columns is spread over the program.
const LARGEST_TABLE: usize = 1 << 18;

/// Elements of a constant, or rows of a table such as embeddings, at positions that differ from row to row.
pub(super) fn gather_by_row(
    builder: &mut ProgramBuilder,
    table: &Value,
    indices: &Value,
    axis: usize,
) -> Result<Vec<Value>> {
    let Some(values) = table.scalars().filter(|_| table.rows.is_none()) else {
        unsupported!("picks from rows at positions of rows");
    };
    if table.rank() == 0 || axis != 0 || (table.rank() > 1 && table.element == ElementType::String) {
        unsupported!("picks from {:?} at positions of rows", table.dims);
    }
    if table.rank() > 1 && values.len() > LARGEST_TABLE {
        unsupported!("picks from a table of {} values, which is large", values.len());
    }
    let values: Vec<_> = values.into_iter().cloned().collect();
    if table.rank() > 1 {
        let dims = [&indices.dims, &table.dims[1..]].concat();
        check_size(&dims)?;
        let positions = checked_positions(builder, &indices.items, table.dims[0])?;
        let width: usize = table.dims[1..].iter().product();
        let columns: Vec<Vec<Scalar>> =
            (0..width).map(|column| values.iter().skip(column).step_by(width).cloned().collect()).collect();
        let mut items = Vec::with_capacity(positions.len() * width);
        for position in &positions {
            for column in &columns {
                items.extend(from_table(builder, std::slice::from_ref(position), column, None)?);
            }
        }
        return Ok(vec![Value { element: table.element, dims, items, texts: None, ..indices.clone() }]);
    }
    let items = look_up_in(builder, &indices.items, &values)?;
    let texts = match table.element {
        ElementType::String => Some(texts_of(values.iter())?),
        _ => None,
    };
    Ok(vec![Value { element: table.element, items, texts, ..indices.clone() }])
}

/// What stands at the positions `indices` in `values`, from the end where they are negative.
fn look_up_in(builder: &mut ProgramBuilder, indices: &[Operand], values: &[Scalar]) -> Result<Vec<Operand>> {
    let positions = checked_positions(builder, indices, values.len())?;
    from_table(builder, &positions, values, None)
}

/// The positions `indices` in a table of `size` places, counted from the start; others are refused when rows are scored.
fn checked_positions(builder: &mut ProgramBuilder, indices: &[Operand], size: usize) -> Result<Vec<Operand>> {
    let size = size as i64;
    let pairs = (-size..size).map(|position| (position, position.rem_euclid(size)));
    let unknown = Some("a position outside the model's table");
    let kernel = LookUp { codes: Codes::new(pairs, NONE), default: NONE, unknown };
    builder.emit(kernel, indices, &vec![Kind::I64; indices.len()])
}

pub(super) fn array_feature_extractor(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (value, indices) = (node.input(0)?, node.input(1)?);
    let Some(axis) = value.rank().checked_sub(1) else { invalid!("picks from a single number") };
    if indices.rows.is_some() {
        // From a list: one row, with what stands at each position.
        if value.rows.is_some() || value.items.len() != value.dims[axis] || indices.items.len() != 1 {
            unsupported!("picks from {:?} at positions of rows", value.dims);
        }
        let list = value.reshaped(vec![value.items.len()], None);
        let picked = gather_by_row(builder, &list, indices, 0)?.remove(0);
        return Ok(vec![picked.reshaped(vec![1, 1], Some(1))]);
    }
    if value.rows == Some(axis) {
        unsupported!("picks rows");
    }
    let picks = positions_of(&indices.integers()?, value.dims[axis])?;
    let mut dims = value.dims.clone();
    dims[axis] = picks.len();
    check_size(&dims)?;
    let items = pick(value, axis, &picks);
    // A list becomes a matrix of one row.
    let (dims, rows) = match value.rank() {
        1 => (vec![1, picks.len()], value.rows),
        _ => (dims, value.rows),
    };
    Ok(vec![value.with_items(dims, rows, items)])
}

/// Texts that are numbers, as numbers.
pub(super) fn parse_texts(builder: &mut ProgramBuilder, value: &Value, element: ElementType) -> Result<Value> {
    let Some(texts) = &value.texts else { unsupported!("casts texts") };
    let parse = |text: &Arc<str>| {
        let scalar = match element {
            ElementType::Int64 => text.parse().ok().map(Scalar::I64),
            ElementType::Float32 => text.parse().ok().map(Scalar::F32),
            ElementType::Float64 => text.parse().ok().map(Scalar::F64),
            _ => None,
        };
        match scalar {
            Some(scalar) => Ok(scalar),
            None => unsupported!("casts '{text}' to {element}"),
        }
    };
    let values = texts.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let items = from_table(builder, &value.items, &values, None)?;
    Ok(Value { element, items, texts: None, ..value.clone() })
}

/// One of two values for each position.
#[derive(Debug)]
struct Indicate {
    position: i64,
    depth: i64,
}

impl Kernel for Indicate {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (to, index) in outputs[0].i64s_mut()[..rows].iter_mut().zip(inputs[0].i64s()) {
            let index = if *index < 0 { index.wrapping_add(self.depth) } else { *index };
            *to = (index == self.position).into();
        }
        Ok(())
    }
}

pub(super) fn one_hot(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (indices, depth, values) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let indices = super::cast::cast_to(builder, indices, ElementType::Int64)?;
    let depth = super::cast::cast_to(builder, depth, ElementType::Int64)?.integers()?;
    let Some(depth) = depth.first().copied().filter(|depth| (1..=1 << 12).contains(depth)) else {
        unsupported!("a depth of {depth:?}");
    };
    let rank = indices.rank() as i64;
    if node.int_or("axis", -1) != -1 && node.int_or("axis", -1) != rank {
        unsupported!("works along another axis than the last");
    }
    let Some(values) = values.scalars().filter(|values| values.len() == 2) else {
        unsupported!("values that are not two constants");
    };
    let values: Vec<_> = values.into_iter().cloned().collect();
    let dims: Vec<usize> = indices.dims.iter().copied().chain([depth as usize]).collect();
    check_size(&dims)?;
    let mut items = vec![];
    for index in &indices.items {
        for position in 0..depth {
            let kernel = Indicate { position, depth };
            let on = builder.emit(kernel, std::slice::from_ref(index), &[Kind::I64])?.remove(0);
            items.extend(from_table(builder, &[on], &values, None)?);
        }
    }
    Ok(vec![Value { element: node.input(2)?.element, items, dims, ..indices.clone() }])
}
