//! Regular expressions as Oniguruma reads them, for which files are written, in the words of the engine that runs them
//! here. The two give many of the same characters another meaning; so only what is known here passes.
//!
//! Reference: Oniguruma's `doc/RE` and `doc/SYNTAX.md` (its own syntax, which is the library's), and the library itself:
//! `patterns_match_as_in_the_library` compares them.

mod class;
mod repeat;

use std::iter::Peekable;
use std::str::Chars;

/// `^` and `$` are about lines; the end of a text does not begin one.
const LINE_START: &str = r"(?:\A|(?<=\n)(?!\z))";
const LINE_END: &str = r"(?=\n|\z)";
const TEXT_END: &str = r"(?=\n?\z)";
const NEWLINE: &str = r"(?>\r\n|[\n-\r\x{85}\x{2028}\x{2029}])";
/// Outside of a class, some numerals are letters of words.
const WORD: &str = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼-¾]";
const NO_WORD: &str = r"[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼-¾]";

/// The most groups and classes within each other.
const DEEPEST: usize = 40;

/// The expression for the engine that runs it.
///
/// # Errors
/// The part of it that is not supported.
pub(super) fn translated(source: &str) -> Result<String, String> {
    let mut translator = Translator { rest: source.chars().peekable(), out: String::new(), folding: None, depth: 0 };
    translator.alternatives(Flags::default())?;
    match translator.rest.next() {
        Some(_) => Err("a `)` without its `(`".into()),
        None => Ok(translator.out),
    }
}

/// What an option turns on.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    /// `i`.
    ignores_case: bool,
    /// `m`: a dot is any character.
    dot_is_all: bool,
    /// `x`: white space and comments say nothing.
    extended: bool,
}

struct Translator<'s> {
    rest: Peekable<Chars<'s>>,
    out: String,
    /// The last letter, if it ignores case: some letters are equal to two or three others (`ß` to `ss`).
    folding: Option<char>,
    depth: usize,
}

impl Translator<'_> {
    /// Everything up to the end of the group.
    fn alternatives(&mut self, mut flags: Flags) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} groups within each other"));
        }
        let mut open = 0;
        loop {
            self.skip(flags)?;
            let start = self.out.len();
            let can_repeat = match self.rest.next_if(|c| *c != ')') {
                None => break,
                Some('|') => {
                    self.out.push('|');
                    self.folding = None;
                    continue;
                }
                Some('(') => match self.group(flags)? {
                    Group::Atom => true,
                    Group::LookAround => false,
                    Group::Options(inner) => {
                        // They hold to the end of this group, with all alternatives in it.
                        self.begin(flags, inner);
                        flags = inner;
                        open += 1;
                        continue;
                    }
                },
                Some('[') => {
                    self.folding = None;
                    self.class(flags)?;
                    true
                }
                Some('\\') => self.escape(flags)?,
                Some('.') => {
                    self.set(flags, if flags.dot_is_all { "(?s:.)" } else { "." });
                    true
                }
                Some('^') => self.anchor(LINE_START),
                Some('$') => self.anchor(LINE_END),
                Some(sign @ ('*' | '+' | '?')) => return Err(format!("a `{sign}` after nothing to repeat")),
                Some('{') if self.count()?.is_some() => return Err("a `{` after nothing to repeat".into()),
                Some(c) => {
                    self.literal(c, flags)?;
                    true
                }
            };
            self.repeat(start, can_repeat, flags)?;
        }
        (0..open).for_each(|_| self.out.push(')'));
        self.depth -= 1;
        Ok(())
    }

    /// Skips what says nothing.
    fn skip(&mut self, flags: Flags) -> Result<(), String> {
        loop {
            if flags.extended && self.rest.next_if(|c| c.is_whitespace()).is_some() {
                continue;
            }
            if flags.extended && self.rest.next_if_eq(&'#').is_some() {
                self.rest.by_ref().find(|c| *c == '\n');
                continue;
            }
            if !self.starts_with("(?#") {
                return Ok(());
            }
            while let Some(c) = self.rest.next()
                && c != ')'
            {
                if c == '\\' {
                    self.rest.next();
                }
            }
        }
    }

    fn starts_with(&self, text: &str) -> bool {
        let mut rest = self.rest.clone();
        text.chars().all(|c| rest.next() == Some(c))
    }

    /// Skips a text that comes next.
    fn take(&mut self, text: &str) -> bool {
        let comes = self.starts_with(text);
        if comes {
            self.rest.nth(text.chars().count() - 1);
        }
        comes
    }

    /// A part that does not depend on case.
    fn set(&mut self, flags: Flags, set: &str) {
        self.folding = None;
        let set = if flags.ignores_case { format!("(?-i:{set})") } else { set.to_owned() };
        self.out.push_str(&set);
    }

    fn anchor(&mut self, anchor: &str) -> bool {
        self.out.push_str(anchor);
        false
    }

    fn literal(&mut self, c: char, flags: Flags) -> Result<(), String> {
        let before = self.folding.take();
        if flags.ignores_case {
            let letter = check_case(c)?.to_ascii_lowercase();
            if let Some(before) = before
                && ["ss", "st", "ff", "fi", "fl"].contains(&&*format!("{before}{letter}"))
            {
                return Err(format!("`{before}{letter}` in any case"));
            }
            self.folding = Some(letter);
        }
        write_literal(c, &mut self.out);
        Ok(())
    }

    /// What follows a backslash outside of a class. Returns whether it can be repeated.
    fn escape(&mut self, flags: Flags) -> Result<bool, String> {
        let c = self.rest.next().ok_or("a backslash at its end")?;
        match c {
            'A' | 'z' => return Ok(self.anchor(if c == 'A' { r"\A" } else { r"\z" })),
            'Z' => return Ok(self.anchor(TEXT_END)),
            'b' => return Ok(self.anchor(&format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))"))),
            'B' => return Ok(self.anchor(&format!("(?:(?<={WORD})(?={WORD})|(?<!{WORD})(?!{WORD}))"))),
            'w' => self.set(flags, WORD),
            'W' => self.set(flags, NO_WORD),
            'd' | 'D' | 's' | 'S' | 'h' | 'H' => self.set(flags, &format!("\\{c}")),
            'R' => self.set(flags, NEWLINE),
            'N' => self.set(flags, "."),
            'O' => self.set(flags, "(?s:.)"),
            'p' | 'P' => {
                let set = self.property(c == 'P')?;
                self.set(flags, &set);
            }
            '1'..='9' if !flags.ignores_case && !self.rest.peek().is_some_and(char::is_ascii_digit) => {
                self.set(flags, &format!("(?:\\{c})"));
            }
            'k' if !flags.ignores_case && self.take("<") => {
                let name = self.name('>')?;
                self.set(flags, &format!("\\k<{name}>"));
            }
            _ => {
                let c = self.escaped_letter(c)?;
                self.literal(c, flags)?;
            }
        }
        Ok(true)
    }

    /// The character that an escape stands for.
    fn escaped_letter(&mut self, c: char) -> Result<char, String> {
        let digits = |text: &str| u32::from_str_radix(text, 16).ok().and_then(char::from_u32);
        Ok(match c {
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            'e' => '\u{1b}',
            'x' | 'u' => {
                let text: String = match c {
                    'x' if self.take("{") => self.rest.by_ref().take_while(|c| *c != '}').collect(),
                    'x' => self.rest.by_ref().take(2).collect(),
                    _ => self.rest.by_ref().take(4).collect(),
                };
                let is_hex = text.chars().all(|c| c.is_ascii_hexdigit());
                let found = digits(&text).filter(|_| is_hex);
                found.ok_or_else(|| format!("`\\{c}` without a character's number"))?
            }
            c if c.is_ascii_alphanumeric() => return Err(format!("`\\{c}`")),
            c => c,
        })
    }

    fn name(&mut self, end: char) -> Result<String, String> {
        let name: String = self.rest.by_ref().take_while(|c| *c != end).collect();
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match is_name && name.starts_with(|c: char| !c.is_ascii_digit()) {
            true => Ok(name),
            false => Err("a group whose name is not of letters".into()),
        }
    }

    /// Begins a group with other options.
    fn begin(&mut self, outer: Flags, inner: Flags) {
        self.out.push_str(match (outer.ignores_case, inner.ignores_case) {
            (false, true) => "(?i:",
            (true, false) => "(?-i:",
            _ => "(?:",
        });
    }

    fn group(&mut self, flags: Flags) -> Result<Group, String> {
        if self.starts_with("*") {
            return Err("`(*`".into());
        }
        let mut inner = flags;
        let mut kind = Group::Atom;
        if !self.take("?") {
            self.out.push('(');
        } else if let Some(look) = ["=", "!", "<=", "<!"].into_iter().find(|look| self.take(look)) {
            self.out.push_str(&format!("(?{look}"));
            kind = Group::LookAround;
        } else if self.take(">") {
            self.out.push_str("(?>");
        } else if let Some(quote) = self.rest.next_if(|c| matches!(c, '<' | '\'')) {
            let name = self.name(if quote == '<' { '>' } else { quote })?;
            self.out.push_str(&format!("(?<{name}>"));
        } else {
            inner = self.options(flags)?;
            match self.rest.next() {
                Some(')') => return Ok(Group::Options(inner)),
                _ => self.begin(flags, inner),
            }
        }
        self.alternatives(inner)?;
        if self.rest.next() != Some(')') {
            return Err("a `(` without its `)`".into());
        }
        self.out.push(')');
        Ok(kind)
    }

    /// Options up to `:` or `)`.
    fn options(&mut self, mut flags: Flags) -> Result<Flags, String> {
        let mut is_on = true;
        while let Some(c) = self.rest.next_if(|c| !matches!(c, ':' | ')')) {
            match c {
                '-' => is_on = false,
                'i' => flags.ignores_case = is_on,
                // The library does not know `s`, which means the same elsewhere.
                'm' | 's' => flags.dot_is_all = is_on,
                'x' => flags.extended = is_on,
                c => return Err(format!("`(?{}`", c.escape_debug())),
            }
        }
        Ok(flags)
    }
}

/// What a parenthesis begins.
enum Group {
    Atom,
    LookAround,
    /// Options for the rest of the group around them.
    Options(Flags),
}

/// A character of which the engine knows all that are equal to it.
fn check_case(c: char) -> Result<char, String> {
    if c.is_ascii() { Ok(c) } else { Err(format!("`{}` in any case", c.escape_debug())) }
}

/// Writes a character that stands for itself.
fn write_literal(c: char, out: &mut String) {
    if matches!(
        c,
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#' | '&' | '-' | '~'
    ) {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests;
