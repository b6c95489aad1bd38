//! From bytes to a file.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::distribution::{Distribution, Encoder, SMALLEST_VOCABULARY, Slot};
use super::format::{Content, Writer};
use super::text::{Segments, deflated};
use super::{Codec, PASS_TOKENS, Totals};
use crate::analysis::perplexity::Window;
use crate::base::pool;
use crate::error::{Error, Result};
use crate::model::{KvCache, select_rows};

/// How many positions' logits are held at once: with more the head runs hardly faster.
const LOGIT_ROWS: usize = 128;

/// A token to code: the position of a pass whose distribution it is, and its id.
type Target = (usize, u32);

impl Codec<'_> {
    /// Compresses bytes into a file, a segment at a time. The paths name both in errors. `progress` is told how many bytes
    /// are done, and may break it off: then there is no result, and the file has no end.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Numerics`] if logits are not finite; if the memory is not there.
    pub fn compress(
        &self,
        (input, from): (impl Read, &Path),
        (output, to): (impl Write, &Path),
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<Totals>> {
        let mut writer = Writer::new(output, to, &self.header)?;
        let (mut segments, mut totals) = (Segments::new(input), Totals::default());
        while let Some(text) = segments.next().map_err(Error::io("read", from))? {
            let done = totals.text;
            let part = &mut |part: f64| progress(done + (part * text.len() as f64) as u64);
            let Some(content) = self.content(&text, part)? else { return Ok(None) };
            writer.segment(&text, &content)?;
            totals.segments += 1;
            totals.text += text.len() as u64;
            if let Content::Coded { tokens, .. } = content {
                totals.coded += 1;
                totals.tokens += tokens as u64;
            }
            if progress(totals.text).is_break() {
                return Ok(None);
            }
        }
        let (text, file) = writer.finish()?;
        Ok(Some(Totals { text, file, ..totals }))
    }

    /// The shortest form of a segment; none if it was broken off.
    fn content(&self, text: &[u8], progress: &mut dyn FnMut(f64) -> ControlFlow<()>) -> Result<Option<Content>> {
        let (deflated, is_for_model) = deflated(text);
        let shortest = deflated.len().min(text.len());
        let is_codable = is_for_model && self.model.config().vocab_size >= SMALLEST_VOCABULARY;
        if let Some(ids) = is_codable.then(|| self.tokens.of(text)).flatten() {
            match self.code(&ids, shortest, progress)? {
                Coded::Shorter(code) => return Ok(Some(Content::Coded { tokens: ids.len(), code })),
                Coded::Longer => {}
                Coded::BrokenOff => return Ok(None),
            }
        }
        Ok(Some(if deflated.len() < text.len() { Content::Deflated(deflated) } else { Content::Stored(text.to_vec()) }))
    }

    /// Codes tokens, if that takes fewer bytes than `limit`.
    fn code(&self, ids: &[u32], limit: usize, progress: &mut dyn FnMut(f64) -> ControlFlow<()>) -> Result<Coded> {
        let ids = [&[self.header.start], ids].concat();
        let mut run = Run { codec: self, ids: &ids, cache: self.model.new_cache(), logits: vec![] };
        let mut windows: Vec<Window> = self.windows.windows(ids.len()).collect();
        let mut encoder = Encoder::new();
        while !windows.is_empty() {
            let mut tokens = 0;
            let fits = |window: &&Window| {
                tokens += window.end - window.begin;
                tokens <= PASS_TOKENS
            };
            let count = windows.iter().take_while(fits).count().max(1);
            let later = windows.split_off(count);
            run.pass(&windows, &mut encoder)?;
            if encoder.len() >= limit {
                return Ok(Coded::Longer);
            }
            if progress(windows[count - 1].end as f64 / ids.len() as f64).is_break() {
                return Ok(Coded::BrokenOff);
            }
            windows = later;
        }
        let code = encoder.finish();
        Ok(if code.len() < limit { Coded::Shorter(code) } else { Coded::Longer })
    }
}

/// What came of coding.
enum Coded {
    Shorter(Vec<u8>),
    Longer,
    BrokenOff,
}

/// A segment on its way through the network.
struct Run<'a> {
    codec: &'a Codec<'a>,
    ids: &'a [u32],
    cache: KvCache,
    /// The logits of a few positions; kept so that their memory is.
    logits: Vec<f32>,
}

impl Run<'_> {
    /// Runs windows through the network in one pass, and codes their new tokens.
    fn pass(&mut self, windows: &[Window], encoder: &mut Encoder) -> Result<()> {
        let model = self.codec.model;
        let (mut inputs, mut targets, mut first) = (vec![], vec![], 0);
        for (row, window) in windows.iter().enumerate() {
            // The last token is only coded.
            let seen = &self.ids[window.begin..window.end - 1];
            inputs.push((row, seen));
            // A token is coded by the distribution in the position before it.
            targets.extend(window.scored().map(|at| -> Target { (first + at - 1 - window.begin, self.ids[at]) }));
            first += seen.len();
        }
        let x = model.forward(&inputs, &mut self.cache, None)?;
        (0..windows.len()).for_each(|row| self.cache.truncate(row, 0));
        for targets in targets.chunks(LOGIT_ROWS) {
            let rows: Vec<u32> = targets.iter().map(|(at, _)| *at as u32).collect();
            model.logits_into(&model.final_norm(&select_rows(&x, &rows)?)?, &mut self.logits)?;
            for slot in slots(&self.logits, targets) {
                encoder.push(slot?);
            }
        }
        Ok(())
    }
}

/// The slots of tokens, given the logits of each.
fn slots(logits: &[f32], targets: &[Target]) -> impl Iterator<Item = Result<Slot>> {
    let rows = logits.chunks_exact(logits.len() / targets.len());
    let mut slots: Vec<_> = rows.zip(targets).map(|(row, (_, id))| (row, *id, None)).collect();
    pool::for_each(logits.len(), &mut slots, |(row, id, slot)| {
        *slot = Some(Distribution::new(row).map(|distribution| distribution.slot(*id as usize)));
    });
    slots.into_iter().filter_map(|(.., slot)| slot)
}
