//! Repetitions: `*`, `+?`, `{2,3}`.

use super::{Flags, Translator};

/// A number of repetitions.
pub(super) enum Repeat {
    /// `*`, `+` or `?`.
    Sign(char),
    /// `{2}`, `{2,}`, `{,3}` or `{2,3}`, as written for the engine; and whether it is the first.
    Count(String, bool),
}

impl Translator<'_> {
    /// How often what was written from `start` on comes.
    pub(super) fn repeat(&mut self, start: usize, can_repeat: bool, flags: Flags) -> Result<(), String> {
        self.skip(flags)?;
        let Some(repeat) = self.repetitions()? else { return Ok(()) };
        if !can_repeat {
            return Err("a repetition of a place, which is no text".into());
        }
        let suffix = self.rest.next_if(|c| matches!(c, '?' | '+'));
        match (&repeat, suffix) {
            (Repeat::Sign(sign), suffix) => self.out.extend([*sign].into_iter().chain(suffix)),
            // A single count is not lazy, but optional; and no count is possessive.
            (Repeat::Count(count, true), Some(suffix)) | (Repeat::Count(count, false), Some(suffix @ '+')) => {
                self.out.insert_str(start, "(?:");
                self.out.push_str(&format!("{count}){suffix}"));
            }
            (Repeat::Count(count, _), suffix) => {
                self.out.push_str(count);
                self.out.extend(suffix);
            }
        }
        self.skip(flags)?;
        match self.repetitions()? {
            Some(_) => Err("a repetition of a repetition".into()),
            None => Ok(()),
        }
    }

    fn repetitions(&mut self) -> Result<Option<Repeat>, String> {
        if let Some(sign) = self.rest.next_if(|c| matches!(c, '*' | '+' | '?')) {
            return Ok(Some(Repeat::Sign(sign)));
        }
        match self.starts_with("{") {
            true => {
                let before = self.rest.clone();
                self.rest.next();
                let count = self.count()?;
                if count.is_none() {
                    self.rest = before;
                }
                Ok(count)
            }
            false => Ok(None),
        }
    }

    /// What follows `{`, if it is a count. Otherwise the brace stands for itself.
    pub(super) fn count(&mut self) -> Result<Option<Repeat>, String> {
        let rest = self.rest.clone();
        let text: String = rest.take_while(|c| c.is_ascii_digit() || *c == ',').collect();
        let (low, high) = text.split_once(',').unwrap_or((&text, &text));
        let number = |text: &str| text.parse::<u32>().ok();
        let (least, most) = match (number(low), number(high)) {
            (None, None) => return Ok(None),
            (least, most) => (least.unwrap_or(0), most),
        };
        let is_open = !low.is_empty() && high.is_empty();
        let is_valid = (low.is_empty() || number(low).is_some()) && (is_open || most.is_some());
        if !is_valid || self.rest.clone().nth(text.len()) != Some('}') {
            return Ok(None);
        }
        if most.is_some_and(|most| most < least) {
            return Err(format!("`{{{text}}}`"));
        }
        self.rest.nth(text.len());
        let most = most.map_or(String::new(), |most| most.to_string());
        let is_single = !text.contains(',');
        let count = if is_single { format!("{{{least}}}") } else { format!("{{{least},{most}}}") };
        Ok(Some(Repeat::Count(count, is_single)))
    }
}
