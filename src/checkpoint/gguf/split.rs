//! A model in several GGUF files, as llama.cpp's `llama-gguf-split` writes them: the first part has the metadata, each
//! part some of the tensors, and the names end in `-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

use super::{Gguf, Value};
use crate::error::{Error, Result};

/// The most parts that are joined.
const MOST_PARTS: u64 = 1000;

/// A part's place in a split model, as its name tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartName<'a> {
    /// What comes before the number.
    pub stem: &'a str,
    /// Which part it is, from 1.
    pub number: u64,
    /// How many there are.
    pub count: u64,
    /// What follows: `.gguf`.
    pub extension: &'a str,
}

impl<'a> PartName<'a> {
    /// Reads the name of a part; `None` for any other name.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (stem, rest) = name.rsplit_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, extension) = rest.split_at(digits);
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        let part = Self { stem, number, count, extension };
        ((1..=count).contains(&number) && part.sibling(number) == name).then_some(part)
    }

    /// The name of another part.
    pub fn sibling(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}{}", self.stem, self.count, self.extension)
    }

    /// The names of all parts, in order.
    pub fn all(&self) -> impl Iterator<Item = String> {
        (1..=self.count.min(MOST_PARTS)).map(|number| self.sibling(number))
    }
}

/// The whole model, if `gguf` is one part of it.
pub(super) fn join(gguf: Gguf) -> Result<Gguf> {
    let count = match number(&gguf, "split.count")? {
        None | Some(0 | 1) => return Ok(gguf),
        Some(count) => count,
    };
    let name = gguf.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some(part) = PartName::parse(&name).filter(|part| part.count == count && count <= MOST_PARTS) else {
        let problem =
            format!("one of {count} parts of a model, which are found by their names, NAME-00001-of-{count:05}.gguf");
        return Err(gguf.error(problem));
    };
    let (mut whole, mut tensors): (Option<Gguf>, _) = (None, vec![]);
    for (name, number) in part.all().zip(0..) {
        let opened = if number + 1 == part.number { gguf.clone() } else { open_part(&gguf.path, &name)? };
        check(&opened, number, count)?;
        tensors.extend(opened.tensors.iter().cloned());
        whole.get_or_insert(opened);
    }
    let mut whole = whole.unwrap_or(gguf);
    if let Some(expected) = number(&whole, "split.tensors.count")?.filter(|expected| *expected != tensors.len() as u64)
    {
        return Err(whole.error(format!("its parts have {} tensors, but should have {expected}", tensors.len())));
    }
    whole.tensors = tensors;
    Ok(whole)
}

fn open_part(beside: &Path, name: &str) -> Result<Gguf> {
    let path: PathBuf = beside.with_file_name(name);
    if !path.is_file() {
        return Err(Error::format(beside, format!("the part `{name}` of this model is not beside it")));
    }
    Gguf::parse(&super::File::open(&path)?)
}

/// Checks that a file is part `number`, from 0, of `count`.
fn check(part: &Gguf, place: u64, count: u64) -> Result<()> {
    let found = (number(part, "split.no")?, number(part, "split.count")?);
    if found == (Some(place), Some(count)) {
        return Ok(());
    }
    let found = match found {
        (Some(no), Some(count)) => format!("part {} of {count}", no.saturating_add(1)),
        _ => "no part of a split model".to_owned(),
    };
    Err(part.error(format!("by its name part {} of {count}, but by its metadata {found}", place + 1)))
}

fn number(gguf: &Gguf, key: &str) -> Result<Option<u64>> {
    match gguf.metadata.get(key) {
        None => Ok(None),
        Some(value) => match Value::as_u64(value) {
            Some(number) => Ok(Some(number)),
            None => Err(gguf.error(format!("`{key}` is not a number of parts or tensors"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_part() {
        let part = PartName::parse("gpt2-of-mine-00002-of-00003.gguf").unwrap();
        assert_eq!((part.stem, part.number, part.count, part.extension), ("gpt2-of-mine", 2, 3, ".gguf"));
        assert_eq!(part.all().last().unwrap(), "gpt2-of-mine-00003-of-00003.gguf");
        assert_eq!(PartName::parse("m-00001-of-00001").unwrap().extension, "");
        for name in ["m.gguf", "m-1-of-3.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-of-00003.gguf", ""]
        {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
    }
}
