//! From a file to its bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::distribution::{Decoder, Distribution};
use super::format::{Content, Reader, Segment};
use super::text::inflated;
use super::{Codec, PASS_TOKENS, Totals};
use crate::analysis::perplexity::Window;
use crate::base::pool;
use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel};
use crate::model::Session;

/// The most segments that are read back side by side: with more, a token takes as long.
const MOST_ROWS: usize = 32;

/// The most segments between the one that is written next and the last that was read.
const AHEAD: u64 = 4 * MOST_ROWS as u64;

impl Codec<'_> {
    /// Decompresses a file for which it is [made](Self::of_file); `to` names the output in errors. Each segment is
    /// written when its checksum is right, and those before a fault are written before it is returned. `progress` is told how many bytes of the file are done, and may break it off:
    /// then there is no result.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is damaged or gives back other bytes than it was made from; [`Error::Io`];
    /// [`Error::Numerics`] if logits are not finite; if the memory is not there.
    pub fn decompress<R: Read>(
        &self,
        reader: &mut Reader<R>,
        (mut output, to): (impl Write, &Path),
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<Totals>> {
        let mut run = Run::new(self);
        let mut totals = Totals::default();
        let mut is_over = false;
        loop {
            while !is_over && run.has_room() {
                match reader.next() {
                    Ok(None) => is_over = true,
                    Ok(Some(segment)) => run.add(segment, reader),
                    Err(fault) => run.fail(run.added, fault),
                }
                is_over |= run.fault.is_some();
            }
            while let Some(text) = run.next_text() {
                reader.hash(&text);
                output.write_all(&text).and_then(|()| output.flush()).map_err(Error::io("write", to))?;
            }
            if progress(reader.position().saturating_sub(run.waiting())).is_break() {
                return Ok(None);
            }
            if run.rows.is_empty() && is_over {
                break;
            }
            run.step(&mut totals, reader)?;
            is_over |= run.fault.is_some();
        }
        if let Some((_, fault)) = run.fault {
            return Err(fault);
        }
        let text = reader.finish()?;
        Ok(Some(Totals { text, file: reader.position(), segments: run.added, ..totals }))
    }

    /// The bytes of a segment that has no code; none if it is damaged.
    fn plain(segment: &Segment) -> Option<Vec<u8>> {
        let text = match &segment.content {
            Content::Coded { .. } => None,
            Content::Deflated(bytes) => inflated(bytes, segment.len),
            Content::Stored(bytes) => Some(bytes.clone()),
        };
        text.filter(|text| crc32fast::hash(text) == segment.checksum)
    }

    /// How many rows there is memory for.
    fn rows(&self) -> usize {
        let (room, window) = (self.model.room(), self.windows.context());
        // Half of what is left: activations and logits need some, too.
        let fitting = room.left.and_then(|left| (left / 2).checked_div(room.cache_bytes(window)));
        fitting.map_or(MOST_ROWS, |rows| (rows as usize).clamp(1, MOST_ROWS))
    }
}

/// Segments on their way back.
struct Run<'a> {
    codec: &'a Codec<'a>,
    session: Session<'a>,
    rows: Vec<Row>,
    /// Rows of the session that no segment has.
    free: Vec<usize>,
    /// How many segments have been added, and how many of them were written.
    added: u64,
    written: u64,
    /// Texts of segments whose turn has not come.
    texts: BTreeMap<u64, Vec<u8>>,
    /// The first segment that cannot be read, and why.
    fault: Option<(u64, Error)>,
}

/// A segment whose tokens are decoded one by one.
struct Row {
    row: usize,
    /// Which segment it is, counted from 0.
    place: u64,
    segment: Segment,
    /// How many tokens there will be, with the one before the segment.
    len: usize,
    code: Decoder,
    /// The tokens so far.
    ids: Vec<u32>,
    window: Window,
    later: Box<dyn Iterator<Item = Window> + Send>,
    /// Where the tokens begin that the network has not seen in this window.
    unseen: usize,
}

impl<'a> Run<'a> {
    fn new(codec: &'a Codec<'a>) -> Self {
        let free = (0..codec.rows()).rev().collect();
        let (rows, texts) = (vec![], BTreeMap::new());
        Self { codec, session: Session::new(codec.model), rows, free, added: 0, written: 0, texts, fault: None }
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() && self.added - self.written < AHEAD
    }

    /// Takes a segment in turn.
    fn add<R: Read>(&mut self, segment: Segment, reader: &Reader<R>) {
        let place = self.added;
        self.added += 1;
        if self.start(place, segment).is_none() {
            self.fail(place, damaged(place, reader));
        }
    }

    /// Begins to read a segment; none if it is damaged.
    fn start(&mut self, place: u64, segment: Segment) -> Option<()> {
        let Content::Coded { tokens, code } = &segment.content else {
            self.texts.insert(place, Codec::plain(&segment)?);
            return Some(());
        };
        let (len, code) = (tokens + 1, Decoder::new(code)?);
        let mut windows = self.codec.windows.windows(len);
        let (window, row) = (windows.next()?, self.free.pop()?);
        let (ids, later) = (vec![self.codec.header.start], Box::new(windows));
        self.rows.push(Row { row, place, segment, len, code, ids, window, later, unseen: window.begin });
        Some(())
    }

    /// Gives up a segment and those after it: only those before it will be written.
    fn fail(&mut self, place: u64, fault: Error) {
        if self.fault.as_ref().is_none_or(|(first, _)| place < *first) {
            self.rows.retain(|row| row.place < place);
            self.fault = Some((place, fault));
        }
    }

    /// The text of the segment whose turn it is to be written, if it is there.
    fn next_text(&mut self) -> Option<Vec<u8>> {
        let text = self.texts.remove(&self.written)?;
        self.written += 1;
        Some(text)
    }

    /// Bytes of the file that have been read and stand for tokens that are still to come.
    fn waiting(&self) -> u64 {
        let waiting = |row: &Row| match &row.segment.content {
            Content::Coded { code, .. } => code.len() as u64 * (row.len - row.ids.len()) as u64 / row.len as u64,
            _ => 0,
        };
        self.rows.iter().map(waiting).sum()
    }

    /// Decodes the next token of each row.
    fn step<R: Read>(&mut self, totals: &mut Totals, reader: &Reader<R>) -> Result<()> {
        let mut faults = vec![];
        let mut rows = &mut self.rows[..];
        while !rows.is_empty() {
            let mut tokens = 0;
            let fits = |row: &&Row| {
                tokens += row.ids.len() - row.unseen;
                tokens <= PASS_TOKENS
            };
            let count = rows.iter().take_while(fits).count().max(1);
            let (pass, later) = rows.split_at_mut(count);
            let inputs: Vec<Input<'_>> =
                pass.iter().map(|row| Input::logits(row.row, &row.ids[row.unseen..])).collect();
            let logits = self.session.forward(&inputs)?.logits;
            let width = self.session.vocab_size();
            let mut found: Vec<_> =
                pass.iter_mut().zip(logits.chunks_exact(width)).map(|pair| (pair, Ok(None))).collect();
            pool::for_each(logits.len(), &mut found, |((row, logits), id)| {
                *id = Distribution::new(logits).map(|distribution| row.code.next(&distribution));
            });
            for ((row, _), id) in found {
                match id.map(|id| row.push(id)) {
                    Ok(Some(true)) => self.session.truncate(row.row, 0),
                    Ok(Some(false)) => {}
                    Ok(None) => faults.push((row.place, other_bytes(row.place, reader))),
                    Err(fault) => faults.push((row.place, fault)),
                }
            }
            rows = later;
        }
        let is_done = |row: &mut Row| row.ids.len() == row.len;
        for row in self.rows.extract_if(.., is_done) {
            let place = row.place;
            self.session.truncate(row.row, 0);
            self.free.push(row.row);
            totals.coded += 1;
            totals.tokens += row.len as u64 - 1;
            match row.text(self.codec) {
                None => faults.push((place, other_bytes(place, reader))),
                Some(_) if !row.uses_all_code() => faults.push((place, damaged(place, reader))),
                Some(text) => drop(self.texts.insert(place, text)),
            }
        }
        faults.into_iter().for_each(|(place, fault)| self.fail(place, fault));
        Ok(())
    }
}

impl Row {
    /// Takes the next token, if there is one, and says whether a new window begins after it.
    fn push(&mut self, id: Option<usize>) -> Option<bool> {
        self.unseen = self.ids.len();
        self.ids.push(id? as u32);
        let is_full = self.ids.len() == self.window.end && self.ids.len() < self.len;
        if is_full {
            self.window = self.later.next()?;
            self.unseen = self.window.begin;
        }
        Some(is_full)
    }

    /// The text of all tokens, if it is what was compressed.
    fn text(&self, codec: &Codec<'_>) -> Option<Vec<u8>> {
        let text = codec.tokens.bytes(&self.ids[1..])?;
        (text.len() == self.segment.len && crc32fast::hash(&text) == self.segment.checksum).then_some(text)
    }

    /// Whether the code says nothing else after the tokens.
    fn uses_all_code(self) -> bool {
        let Content::Coded { code, .. } = self.segment.content else { return true };
        self.code.used() == code
    }
}

/// A segment is no segment, although its checksum is right.
fn damaged<R: Read>(place: u64, reader: &Reader<R>) -> Error {
    reader.fault(&format!("segment {} is damaged", place + 1))
}

/// A segment is whole, but what it gives is not what was compressed.
fn other_bytes<R: Read>(place: u64, reader: &Reader<R>) -> Error {
    reader.fault(&format!(
        "segment {} does not give back what was compressed: what made it computes other numbers than this program here",
        place + 1
    ))
}
