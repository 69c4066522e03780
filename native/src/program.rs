//! A compiled graph: steps over blocks of columns.

use std::fmt::Debug;
use std::sync::{Arc, Weak};

use arrow::array::Array;
use arrow::buffer::ScalarBuffer;

use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// Texts that columns of positions stand for.
pub(crate) type Texts = Arc<[Arc<str>]>;

/// How the elements of a column are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    F32,
    F64,
    /// Integers of any width, booleans, and positions of texts.
    I64,
}

/// A column while the graph is compiled: each is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Register {
    pub kind: Kind,
    pub number: u32,
}

/// Where a column is while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    /// A column of the inputs, read where it lies.
    Input(usize),
    /// A buffer for one block, which several columns use in turn.
    Slot(usize),
}

/// Elements of a column, for the rows of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slice<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
}

/// A slot's memory: one block.
#[derive(Debug)]
pub(crate) enum Buffer {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

macro_rules! accessors {
    ($($variant:ident, $get:ident, $get_mut:ident, $native:ty;)+) => {
        impl<'a> Slice<'a> {
            $(
                /// The elements; the compiler gives each kernel columns of the kinds that it asked for.
                #[inline]
                pub(crate) fn $get(self) -> &'a [$native] {
                    match self {
                        Self::$variant(values) => values,
                        other => unreachable!("a column of {}, not {other:?}", stringify!($variant)),
                    }
                }
            )+
        }

        impl Buffer {
            $(
                /// The elements; the compiler gives each kernel columns of the kinds that it asked for.
                #[inline]
                pub(crate) fn $get_mut(&mut self) -> &mut [$native] {
                    match self {
                        Self::$variant(values) => values,
                        other => unreachable!("a column of {}, not {other:?}", stringify!($variant)),
                    }
                }
            )+

            pub(crate) fn new(kind: Kind, rows: usize) -> Self {
                match kind { $(Kind::$variant => Self::$variant(vec![Default::default(); rows]),)+ }
            }

            pub(crate) fn slice(&self, rows: usize) -> Slice<'_> {
                match self { $(Self::$variant(values) => Slice::$variant(&values[..rows]),)+ }
            }
        }
    };
}
accessors! {
    F32, f32s, f32s_mut, f32;
    F64, f64s, f64s_mut, f64;
    I64, i64s, i64s_mut, i64;
}

impl Default for Buffer {
    fn default() -> Self {
        Self::F32(vec![])
    }
}

/// What a step does with a block of its columns.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// Computes the first `rows` elements of each output, which hold a block each. The outputs are none of the inputs.
    ///
    /// # Errors
    /// A row for which there is no result, in words that follow the model's name.
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        scratch: &mut TreeScratch,
    ) -> Result<(), String>;

    /// The input, by its place, and the row that have made a run of these inputs fail, where one value has.
    fn refused(&self, _inputs: &[Slice<'_>]) -> Option<(usize, usize)> {
        None
    }

    /// Rows that it takes at once, at most.
    fn most_rows(&self) -> usize {
        usize::MAX
    }

    /// Bytes in memory, beside the constants of a few columns.
    fn size(&self) -> usize {
        0
    }
}

#[derive(Debug)]
pub(crate) struct Step {
    pub kernel: Box<dyn Kernel>,
    pub inputs: Vec<Location>,
    /// Slots.
    pub outputs: Vec<usize>,
}

/// A column of the inputs that the program reads.
#[derive(Debug, Clone)]
pub(crate) struct InputColumn {
    /// Which input of the model, and which of its columns.
    pub input: usize,
    pub column: usize,
    /// How the program reads it.
    pub kind: Kind,
    /// Of a text: what it is looked up in, for the position that the program reads in its place.
    pub lookup: Option<Arc<TextTable>>,
}

/// Texts and the numbers that stand for them.
#[derive(Debug)]
pub(crate) struct TextTable {
    pub codes: hashbrown::HashMap<String, i64>,
    /// For a text that is not among them.
    pub default: i64,
}

impl TextTable {
    pub(crate) fn code(&self, text: &str) -> i64 {
        self.codes.get(text).copied().unwrap_or(self.default)
    }
}

/// An output of the program.
#[derive(Debug)]
pub(crate) struct Output {
    pub element: ElementType,
    /// Of a row.
    pub dims: Vec<usize>,
    pub columns: Vec<(Kind, Location)>,
    /// Of a text: the columns are positions in these.
    pub texts: Option<Texts>,
}

/// Rows of a block, at most: the longer the runs of a column, the better they are fetched.
const LARGEST_BLOCK: usize = 2048;

/// Bytes of all slots together, about.
const SLOTS_SIZE: usize = 32 << 10;

/// Rows of a block, at least: below, the cost of a step for each block counts.
const SMALLEST_BLOCK: usize = 512;

/// The rows of a block for these steps over this many slots.
pub(crate) fn block_rows(steps: &[Step], slots: usize) -> usize {
    let fitting = SLOTS_SIZE / size_of::<f32>() / slots.max(1);
    let fitting = (1 << fitting.max(1).ilog2()).clamp(SMALLEST_BLOCK, LARGEST_BLOCK);
    steps.iter().map(|step| step.kernel.most_rows()).fold(fitting, usize::min)
}

/// Why a run failed.
#[derive(Debug)]
pub(crate) struct Problem {
    pub text: String,
    /// The input column and the row of the block whose value is at fault, if it is one.
    pub cell: Option<(usize, usize)>,
}

/// A compiled graph.
#[derive(Debug)]
pub(crate) struct Program {
    pub inputs: Vec<InputColumn>,
    pub steps: Vec<Step>,
    pub outputs: Vec<Output>,
    /// Rows of a block: so many that the slots stay in the first-level cache.
    pub block: usize,
    pub slots: Vec<Kind>,
    /// Slots that hold the same number in all rows, and are never written.
    pub constants: Vec<(usize, Constant)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Constant {
    F32(f32),
    F64(f64),
    I64(i64),
}

/// The dictionary that came last, and the numbers that stand for its texts. It is not kept in memory: its query may be over.
pub(crate) type Dictionary = Option<(Weak<dyn Array>, ScalarBuffer<i64>)>;

/// The memory in which a program runs: one for each run at a time.
#[derive(Debug)]
pub(crate) struct Scratch {
    slots: Vec<Buffer>,
    trees: TreeScratch,
    /// Of each input, the dictionary that came last, and what its texts are looked up as.
    pub dictionaries: Vec<Dictionary>,
}

impl Program {
    pub(crate) fn scratch(&self) -> Scratch {
        let mut slots: Vec<_> = self.slots.iter().map(|kind| Buffer::new(*kind, self.block)).collect();
        for (slot, constant) in &self.constants {
            match constant {
                Constant::F32(value) => slots[*slot].f32s_mut().fill(*value),
                Constant::F64(value) => slots[*slot].f64s_mut().fill(*value),
                Constant::I64(value) => slots[*slot].i64s_mut().fill(*value),
            }
        }
        Scratch { slots, trees: TreeScratch::default(), dictionaries: vec![None; self.inputs.len()] }
    }

    /// Bytes in memory.
    pub(crate) fn size(&self) -> usize {
        self.steps.iter().map(|step| step.kernel.size()).sum()
    }

    /// Runs all steps on one block: `rows` rows of the input columns, of which each slice holds as many.
    pub(crate) fn run(&self, rows: usize, inputs: &[Slice<'_>], scratch: &mut Scratch) -> Result<(), Problem> {
        for (number, step) in self.steps.iter().enumerate() {
            let mut outputs: Vec<_> =
                step.outputs.iter().map(|slot| std::mem::take(&mut scratch.slots[*slot])).collect();
            let columns: Vec<_> = step.inputs.iter().map(|at| column(*at, rows, inputs, &scratch.slots)).collect();
            let result = step.kernel.run(rows, &columns, &mut outputs, &mut scratch.trees);
            let result = result.map_err(|text| {
                let refused = step.kernel.refused(&columns);
                let cell = refused.and_then(|(place, row)| Some((self.origin(number, place)?, row)));
                Problem { text, cell }
            });
            for (slot, buffer) in step.outputs.iter().zip(outputs) {
                scratch.slots[*slot] = buffer;
            }
            result?;
        }
        Ok(())
    }

    /// The input column that a step reads at `place`, directly or through a step that computes each of its columns from the
    /// one at the same place.
    fn origin(&self, step: usize, place: usize) -> Option<usize> {
        match *self.steps[step].inputs.get(place)? {
            Location::Input(column) => Some(column),
            Location::Slot(slot) => {
                let writers = self.steps[..step].iter().enumerate().rev();
                let place_in = |step: &Step| step.outputs.iter().position(|output| *output == slot);
                let (writer, place) = writers.filter_map(|(i, step)| Some((i, place_in(step)?))).next()?;
                let same_places = self.steps[writer].inputs.len() == self.steps[writer].outputs.len();
                if same_places { self.origin(writer, place) } else { None }
            }
        }
    }

    /// A column of an output, after a run.
    pub(crate) fn output<'a>(
        &self,
        location: Location,
        rows: usize,
        inputs: &[Slice<'a>],
        scratch: &'a Scratch,
    ) -> Slice<'a> {
        column(location, rows, inputs, &scratch.slots)
    }
}

fn column<'a>(location: Location, rows: usize, inputs: &[Slice<'a>], slots: &'a [Buffer]) -> Slice<'a> {
    match location {
        Location::Input(input) => inputs[input],
        Location::Slot(slot) => slots[slot].slice(rows),
    }
}
