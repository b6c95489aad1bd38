//! `gpt2 trace --save`: activations in a file.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use gpt2::Result;
use gpt2::analysis::activations::Activations;
use gpt2::analysis::saved::{self, Names, Selection};
use gpt2::analysis::tensor_file::{self, Spool};
use gpt2::config::Config;
use gpt2::error::tokens_text;
use gpt2::model::Gpt2;

/// What is saved, and where.
pub struct Saving<'a> {
    path: &'a Path,
    selection: Selection,
    /// Those of rows, of which nobody knows how many there will be.
    rows: RefCell<Option<Spool>>,
}

impl<'a> Saving<'a> {
    /// The activations of these names that match the patterns; of rows if there `are_rows`, else of one text.
    pub fn new(path: &'a Path, names: Names, patterns: &[String], config: &Config, are_rows: bool) -> Result<Self> {
        let selection = Selection::new(names, patterns, config)?;
        let rows = if are_rows { Some(Spool::create(path)?) } else { None };
        Ok(Self { path, selection, rows: RefCell::new(rows) })
    }

    /// Bytes of memory that it takes for a text of so many tokens.
    pub fn bytes(&self, config: &Config, tokens: usize) -> u64 {
        self.selection.bytes(config, tokens)
    }

    /// Runs texts as [`Activations::record_all`] does, and saves what is selected: of one text as the whole file, of rows
    /// with these names beside those of others.
    pub fn record(
        &self,
        model: &Gpt2,
        texts: &[&[u32]],
        names: &[String],
        attention: Range<usize>,
    ) -> Result<Vec<Activations>> {
        let selection = &self.selection;
        let mut rows = self.rows.borrow_mut();
        let Some(rows) = &mut *rows else {
            let mut found = vec![];
            let tokens = texts.iter().map(|ids| ids.len()).sum();
            tensor_file::write(self.path, &selection.tensors(model.config(), tokens), |sink| {
                let saving = saved::Saving { selection, sink, prefixes: &[] };
                found = Activations::record_and_save(model, texts, attention, Some(saving))?;
                Ok(())
            })?;
            return Ok(found);
        };
        let prefixes: Vec<String> = names.iter().map(|name| format!("{name}/")).collect();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let saving = saved::Saving { selection, sink: rows, prefixes: &prefixes };
        Activations::record_and_save(model, texts, attention, Some(saving))
    }

    /// Runs rows; if that fails, nothing of them is saved.
    pub fn all_or_none<T>(&self, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let before = self.rows.borrow().as_ref().map_or(0, Spool::len);
        let found = run();
        if let (Err(_), Some(rows)) = (&found, &mut *self.rows.borrow_mut()) {
            rows.truncate(before)?;
        }
        found
    }

    /// Writes the file of all rows, and says what it has.
    pub fn finish(&self) -> Result<String> {
        let Some(rows) = self.rows.take() else { return Ok(String::new()) };
        let texts = rows.len() / self.selection.count().max(1);
        rows.finish()?;
        Ok(self.of(if texts == 1 { "1 text".to_owned() } else { format!("{texts} texts") }))
    }

    /// What a file of one text has.
    pub fn of_text(&self, tokens: usize) -> String {
        self.of(tokens_text(tokens))
    }

    fn of(&self, whom: String) -> String {
        match self.selection.count() {
            1 => format!("1 activation of {whom}"),
            count => format!("{count} activations of {whom}"),
        }
    }
}
