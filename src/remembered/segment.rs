//! Segments: files of records, to which one process appends and from which all read.
//!
//! ```text
//!  record   magic │ rows: u32 │ bytes of the values: u64 │ checksum of this and of the rows below: u64
//!           for each row: key, 16 bytes │ length: u32 │ checksum of the value: u64
//!           the values, one after the other
//! ```
//!
//! A process that is killed leaves part of a record at the end of its segment, which nothing is read from: a record counts when all
//! of it is there. Numbers are little-endian.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use twox_hash::XxHash64;

/// The first half of the SHA-256 of a row's input.
pub(super) type Key = [u8; 16];

const MAGIC: &[u8; 4] = b"PRD1";

const HEADER: usize = 4 + 4 + 8 + 8;

const ROW: usize = 16 + 4 + 8;

/// Rows of a record, at most: a header that says more is none.
pub(super) const MOST_ROWS: usize = 1 << 20;

/// Where a value is in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub offset: u64,
    pub length: u32,
    /// Of the value's bytes.
    pub checksum: u64,
}

impl Span {
    /// The place behind it.
    pub(super) fn end(self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

pub(super) fn checksum(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The bytes of a record of these rows.
pub(super) fn record(rows: &[(Key, &[u8])]) -> Vec<u8> {
    let size: usize = rows.iter().map(|(_, value)| value.len()).sum();
    let mut bytes = Vec::with_capacity(HEADER + rows.len() * ROW + size);
    bytes.extend_from_slice(MAGIC);
    bytes.extend((rows.len() as u32).to_le_bytes()); // no more than MOST_ROWS
    bytes.extend((size as u64).to_le_bytes());
    bytes.extend([0; 8]);
    for (key, value) in rows {
        bytes.extend(key);
        bytes.extend((value.len() as u32).to_le_bytes()); // checked by the caller
        bytes.extend(checksum(value).to_le_bytes());
    }
    let sum = checksum_of_rows(&bytes);
    bytes[HEADER - 8..HEADER].copy_from_slice(&sum.to_le_bytes());
    rows.iter().for_each(|(_, value)| bytes.extend_from_slice(value));
    bytes
}

/// Of a record's beginning, without the place of the checksum itself.
fn checksum_of_rows(bytes: &[u8]) -> u64 {
    checksum(&bytes[HEADER..]) ^ checksum(&bytes[..HEADER - 8])
}

/// Reads the records that stand from `start` on, calls `found` for each row, and gives the place behind the last whole record.
///
/// # Errors
/// A file that can't be read. What is no record is the end.
pub(super) fn read_from(file: &mut File, start: u64, mut found: impl FnMut(Key, Span)) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let mut at = start;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    while at + HEADER as u64 <= end {
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; HEADER];
        file.read_exact(&mut bytes)?;
        let rows = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let size = number(&bytes[8..16]);
        let values = at + HEADER as u64 + u64::from(rows) * ROW as u64;
        if &bytes[..4] != MAGIC || rows as usize > MOST_ROWS || values.saturating_add(size) > end {
            break;
        }
        bytes.resize(HEADER + rows as usize * ROW, 0);
        file.read_exact(&mut bytes[HEADER..])?;
        if checksum_of_rows(&bytes) != number(&bytes[16..24]) {
            break;
        }
        let mut offset = values;
        for row in bytes[HEADER..].chunks_exact(ROW) {
            let mut key = Key::default();
            key.copy_from_slice(&row[..16]);
            let length = u32::from_le_bytes([row[16], row[17], row[18], row[19]]);
            found(key, Span { offset, length, checksum: number(&row[20..28]) });
            offset += u64::from(length);
        }
        at = values + size;
    }
    Ok(at)
}
