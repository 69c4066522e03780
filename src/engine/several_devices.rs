//! A model that several devices run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion_predict_native::Tensor;

use super::{Devices, Executable, Placement, RunContext};
use crate::error::{Result, bail};

/// A model made ready on each of several devices, which share its runs: each goes to the device that has the fewest of them.
///
/// A device that is busy with other models is done with its runs later, and so gets fewer.
#[derive(Debug)]
pub(crate) struct SeveralDevices {
    label: String,
    devices: Devices,
    of_each: Vec<Arc<dyn Executable>>,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    /// The runs that each device has now, on it or in the line before it.
    runs: Vec<usize>,
    /// The place of the one that comes next among those that have as many.
    next: usize,
}

impl SeveralDevices {
    /// The model `label`, which `of_each` of `devices` has, in their order.
    pub(crate) fn new(label: &str, devices: Devices, of_each: Vec<Arc<dyn Executable>>) -> Self {
        let under_way = Mutex::new(UnderWay { runs: vec![0; of_each.len()], next: 0 });
        Self { label: label.to_owned(), devices, of_each, under_way }
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of the device that has the fewest runs, with one more.
    fn choose(&self) -> Option<Chosen<'_>> {
        let mut under_way = self.under_way();
        let count = self.of_each.len();
        // In turn where they have as many, so that all are tried when a model is created.
        let places = (0..count).map(|place| (under_way.next + place) % count);
        let place = places.min_by_key(|place| under_way.runs[*place])?;
        under_way.runs[place] += 1;
        under_way.next = (place + 1) % count;
        Some(Chosen { of: self, place })
    }
}

/// A run on one of the devices, until this is dropped.
struct Chosen<'a> {
    of: &'a SeveralDevices,
    place: usize,
}

impl Drop for Chosen<'_> {
    fn drop(&mut self) {
        self.of.under_way().runs[self.place] -= 1;
    }
}

impl Executable for SeveralDevices {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        match self.choose() {
            Some(chosen) => self.of_each[chosen.place].run(inputs, context),
            None => bail!(EngineFailed, "model '{}' has no device", self.label),
        }
    }

    fn device(&self) -> String {
        self.devices.to_string()
    }

    fn placement(&self) -> Option<Placement> {
        self.of_each.first()?.placement() // the others have the same graph
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = vec![];
        for note in self.of_each.iter().flat_map(|each| each.notes()) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }

    fn variant(&self) -> String {
        self.of_each.first().map(|first| first.variant()).unwrap_or_default()
    }

    fn sessions(&self) -> usize {
        self.of_each.iter().map(|each| each.sessions()).sum()
    }

    fn size(&self) -> Option<usize> {
        self.of_each.iter().map(|each| each.size()).sum()
    }
}
