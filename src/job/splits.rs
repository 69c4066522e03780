//! Cuts the input of a run into splits, and finds what earlier runs have scored already.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::records::InputFile;
use super::state::{Generation, SplitKey};

/// The largest split, unless the job says otherwise.
const LARGEST: u64 = 128 << 20;
/// The smallest, where there is more input than that; and the smallest part of a file.
pub(super) const SMALLEST: u64 = 1 << 20;
/// Splits for each core, so that the last ones keep all cores busy.
const PER_CORE: u64 = 16;
/// The most files of a split: what is lost with it when a worker dies.
const MOST_FILES: usize = 1000;

/// A part of a run: input files, or a part of one, that are scored as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Split {
    pub inputs: Vec<InputFile>,
}

/// What a run is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub splits: Vec<Split>,
    /// Splits of earlier runs whose output is to go: their input is gone, has changed, or is scored again.
    pub retires: Vec<SplitKey>,
}

/// How input is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Bytes of a split; by default what keeps `cores` busy.
    pub size: Option<u64>,
    pub cores: usize,
    /// The bytes of the smallest part of a file; `None` if parts of a file can't be read on their own.
    pub smallest_part: Option<u64>,
    /// All input is one split.
    pub one_split: bool,
}

/// The splits of `inputs` that `before` does not have yet. `again` says which of its splits are scored once more.
pub(super) fn work(inputs: &[InputFile], before: &Generation, again: impl Fn(&SplitKey) -> bool, cut: Cut) -> Work {
    let by_path: HashMap<(usize, &str), &InputFile> =
        inputs.iter().map(|input| ((input.scan, input.path.as_str()), input)).collect();
    let is_there =
        |input: &InputFile| by_path.get(&(input.scan, input.path.as_str())).is_some_and(|now| now.is_same_file(input));
    let mut work = Work::default();
    let mut scored: BTreeMap<(usize, &str), Vec<(u64, u64)>> = BTreeMap::new();
    let all_there = |inputs: &[InputFile]| inputs.iter().all(is_there);
    if cut.one_split {
        let same =
            |key: &SplitKey, before: &[InputFile]| !again(key) && all_there(before) && before.len() == inputs.len();
        let kept = before.splits.iter().any(|(key, split)| same(key, &split.inputs));
        if !kept {
            work.retires = before.splits.keys().copied().collect();
            work.splits.push(Split { inputs: inputs.to_vec() });
        }
        return work;
    }
    for (key, split) in &before.splits {
        if again(key) || !all_there(&split.inputs) {
            work.retires.push(*key);
            continue;
        }
        for input in &split.inputs {
            let range = input.range.unwrap_or((0, input.size));
            scored.entry((input.scan, input.path.as_str())).or_default().push(range);
        }
    }
    let mut missing = vec![];
    for input in inputs {
        match scored.get_mut(&(input.scan, input.path.as_str())) {
            None => missing.push(input.clone()),
            Some(ranges) => {
                // A part of it was scored by a run that did not come to its end.
                let gaps = gaps(ranges, input.size);
                missing.extend(gaps.into_iter().map(|range| InputFile { range: Some(range), ..input.clone() }));
            }
        }
    }
    work.splits = cut_files(missing, cut);
    work
}

/// What `ranges` leave of `0..size`.
fn gaps(ranges: &mut [(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut gaps = vec![];
    let mut at = 0;
    for (start, end) in ranges.iter() {
        if *start > at {
            gaps.push((at, *start));
        }
        at = at.max(*end);
    }
    if at < size {
        gaps.push((at, size));
    }
    gaps
}

/// Files that are larger than a split are cut; smaller ones of a scan are grouped, in the order of their paths.
fn cut_files(mut files: Vec<InputFile>, cut: Cut) -> Vec<Split> {
    let length = |file: &InputFile| file.range.map_or(file.size, |(start, end)| end - start);
    let total: u64 = files.iter().map(length).sum();
    let fair = total / (cut.cores as u64 * PER_CORE).max(1);
    let size = cut.size.unwrap_or_else(|| fair.clamp(SMALLEST, LARGEST)).max(1);
    files.sort_by(|a, b| (a.scan, &a.path, a.range).cmp(&(b.scan, &b.path, b.range)));
    let mut splits: Vec<Split> = vec![];
    let mut group: Vec<InputFile> = vec![];
    let mut bytes = 0;
    for file in files {
        let whole = file.range.is_none();
        let full = bytes + length(&file) > size || group.len() >= MOST_FILES;
        if !group.is_empty() && (full || !whole || group[0].scan != file.scan) {
            splits.push(Split { inputs: std::mem::take(&mut group) });
            bytes = 0;
        }
        let part_size = cut.smallest_part.map(|smallest| size.max(smallest));
        let Some(part_size) = part_size.filter(|part_size| length(&file) > *part_size) else {
            bytes += length(&file);
            group.push(file);
            if !whole {
                splits.push(Split { inputs: std::mem::take(&mut group) });
                bytes = 0;
            }
            continue;
        };
        let (start, end) = file.range.unwrap_or((0, file.size));
        let parts = (end - start).div_ceil(part_size);
        let place = |part: u64| start + ((end - start) as u128 * part as u128 / parts as u128) as u64;
        for part in 0..parts {
            let range = Some((place(part), place(part + 1)));
            splits.push(Split { inputs: vec![InputFile { range, ..file.clone() }] });
        }
    }
    if !group.is_empty() {
        splits.push(Split { inputs: group });
    }
    splits
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::records::SplitRecord;
    use super::*;

    fn file(path: &str, size: u64) -> InputFile {
        InputFile { scan: 0, path: path.to_owned(), size, etag: None, modified: 1, range: None }
    }

    fn cut(size: u64) -> Cut {
        Cut { size: Some(size), cores: 2, smallest_part: Some(1), one_split: false }
    }

    fn scored(splits: &[Split]) -> Generation {
        let records = splits.iter().enumerate().map(|(i, split)| {
            let record = SplitRecord {
                split: i as u32,
                inputs: split.inputs.clone(),
                files: vec![],
                rows_in: 0,
                rows_out: 0,
                rows_set_aside: 0,
                set_aside: vec![],
                failed: vec![],
                worker: String::new(),
                started_at: 0,
                seconds: 0.0,
                model_seconds: 0.0,
                engines: Default::default(),
                bytes_read: 0,
                bytes_written: 0,
                attempts: 1,
                sums: BTreeMap::new(),
            };
            (SplitKey(1, i as u32), Arc::new(record))
        });
        Generation { fingerprint: String::new(), definition: None, splits: records.collect(), published: true }
    }

    fn shape(splits: &[Split]) -> Vec<String> {
        let input = |input: &InputFile| match input.range {
            Some((start, end)) => format!("{}[{start}..{end}]", input.path),
            None => input.path.clone(),
        };
        splits.iter().map(|split| split.inputs.iter().map(input).collect::<Vec<_>>().join("+")).collect()
    }

    #[test]
    fn small_files_are_grouped_and_large_ones_cut() {
        let files = [file("a", 40), file("b", 50), file("c", 20), file("d", 250), file("e", 0)];
        let work = work(&files, &Generation::default(), |_| false, cut(100));
        assert_eq!(shape(&work.splits), ["a+b", "c", "d[0..83]", "d[83..166]", "d[166..250]", "e"]);
    }

    #[test]
    fn a_new_file_scores_nothing_again_and_a_changed_one_its_group() {
        let mut files = vec![file("a", 40), file("b", 50), file("d", 250)];
        let before = scored(&work(&files, &Generation::default(), |_| false, cut(100)).splits);
        assert_eq!(work(&files, &before, |_| false, cut(100)), Work::default());

        files.push(file("ab", 10));
        let new = work(&files, &before, |_| false, cut(100));
        assert_eq!((shape(&new.splits), new.retires), (vec!["ab".to_owned()], vec![]));

        files[0].modified = 2;
        let changed = work(&files, &before, |_| false, cut(100));
        assert_eq!((shape(&changed.splits), changed.retires), (vec!["a+ab+b".to_owned()], vec![SplitKey(1, 0)]));

        let gone = work(&files[1..], &before, |_| false, cut(100));
        assert_eq!((shape(&gone.splits), gone.retires), (vec!["ab+b".to_owned()], vec![SplitKey(1, 0)]));
    }

    #[test]
    fn what_is_missing_of_a_file_is_scored_whatever_the_size_of_splits() {
        let files = [file("d", 250)];
        let all = work(&files, &Generation::default(), |_| false, cut(100)).splits;
        let before = scored(&[all[1].clone()]);
        let rest = work(&files, &before, |_| false, cut(1000));
        assert_eq!(
            (shape(&rest.splits), rest.retires),
            (vec!["d[0..83]".to_owned(), "d[166..250]".to_owned()], vec![])
        );
        let again = work(&files, &scored(&all), |key| key.1 == 2, cut(1000));
        assert_eq!((shape(&again.splits), again.retires), (vec!["d[166..250]".to_owned()], vec![SplitKey(1, 2)]));
    }

    #[test]
    fn one_split_is_scored_again_when_anything_has_changed() {
        let one = Cut { one_split: true, ..cut(10) };
        let files = [file("a", 40), file("b", 50)];
        let all = work(&files, &Generation::default(), |_| false, one).splits;
        assert_eq!(shape(&all), ["a+b"]);
        let before = scored(&all);
        assert_eq!(work(&files, &before, |_| false, one), Work::default());
        let more = work(&[&files[..], &[file("c", 1)]].concat(), &before, |_| false, one);
        assert_eq!((shape(&more.splits), more.retires), (vec!["a+b+c".to_owned()], vec![SplitKey(1, 0)]));
    }

    #[test]
    fn splits_keep_all_cores_busy() {
        let files: Vec<_> = (0..64).map(|i| file(&format!("{i:02}"), 10 << 20)).collect();
        let splits = |cut: Cut| work(&files, &Generation::default(), |_| false, cut).splits.len();
        let fair = Cut { size: None, ..cut(1) };
        assert_eq!(splits(fair), 32); // of 20 MB
        let many = Cut { cores: 16, ..fair };
        assert_eq!(splits(many), 256); // of 2.5 MB
        assert_eq!(splits(Cut { smallest_part: Some(5 << 20), ..many }), 128);
        assert_eq!(splits(Cut { smallest_part: None, ..many }), 64);
    }
}
