//! Puts the results of a run that was continued into the order of its input.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Sorts an output by the lines that its results are of. `files` are the names of the inputs, if there are several.
///
/// Rows that an earlier run has not finished, or that failed in it, are done after those that it has.
pub fn restore(path: &Path, file: File, files: &[String]) -> Result<()> {
    #[derive(Deserialize)]
    struct Record {
        line: usize,
        file: Option<String>,
    }
    let cannot_read = || format!("cannot read {}", path.display());
    let mut file = BufReader::new(file);
    file.rewind().with_context(cannot_read)?;
    let mut records: Vec<((usize, usize), Range<u64>)> = vec![];
    let (mut line, mut start) = (vec![], 0);
    while file.read_until(b'\n', &mut line).with_context(cannot_read)? > 0 {
        let record: Record = serde_json::from_slice(&line).with_context(cannot_read)?;
        let which = files.iter().position(|name| record.file.as_ref() == Some(name)).unwrap_or_default();
        let end = start + line.len() as u64;
        records.push(((which, record.line), start..end));
        start = end;
        line.clear();
    }
    if records.is_sorted_by_key(|(place, _)| *place) {
        return Ok(());
    }
    records.sort_by_key(|(place, _)| *place);
    rewrite(path, file.into_inner(), records.iter().map(|(_, part)| part))
}

/// Replaces a file by these parts of it. If this process were killed while it rewrote the file in place, that would be lost.
pub fn rewrite<'a>(path: &Path, mut file: File, mut parts: impl Iterator<Item = &'a Range<u64>>) -> Result<()> {
    // This closes the file at its end: Windows may not replace one that is open.
    let rewritten = gpt2::files::atomically(path, move |writer| {
        let mut copy = |part: &Range<u64>| {
            file.seek(SeekFrom::Start(part.start))?;
            std::io::copy(&mut (&mut file).take(part.end - part.start), writer)
        };
        parts.try_for_each(|part| copy(part).map(|_| ())).map_err(gpt2::Error::io("write", path))
    });
    Ok(rewritten?)
}
