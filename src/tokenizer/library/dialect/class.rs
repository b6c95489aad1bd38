//! Classes of characters: `[a-z&&[^x]]`, `[[:alpha:]]`, `\p{L}`.

use super::{Flags, Translator, check_case, write_literal};

/// Letters of words inside of a class.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";

/// POSIX's classes: what is in them, or else what is not.
const POSIX: [(&str, bool, &str); 14] = [
    ("alnum", true, r"\p{Alphabetic}\p{Nd}"),
    ("alpha", true, r"\p{Alphabetic}"),
    ("ascii", true, r"\x00-\x7f"),
    ("blank", true, r"\p{Zs}\t"),
    ("cntrl", true, r"\p{Cc}"),
    ("digit", true, r"\p{Nd}"),
    ("graph", false, r"\s\p{Cc}\p{Cn}"),
    ("lower", true, r"\p{Lowercase}"),
    ("print", false, r"\p{Cc}\p{Cn}\p{Zl}\p{Zp}"),
    ("punct", true, r"\p{P}\p{S}"),
    ("space", true, r"\s"),
    ("upper", true, r"\p{Uppercase}"),
    ("word", true, WORD),
    ("xdigit", true, "0-9a-fA-F"),
];

/// One of them, or all other characters.
fn posix(name: &str, other: bool) -> Option<String> {
    let (_, is_in, members) = POSIX.iter().find(|(known, ..)| *known == name)?;
    Some(format!("[{}{members}]", if *is_in == other { "^" } else { "" }))
}

/// A part of a class.
enum Member {
    Letter(char),
    Set(String),
}

impl Translator<'_> {
    /// A class, after its `[`.
    pub(super) fn class(&mut self, flags: Flags) -> Result<(), String> {
        self.depth += 1;
        if self.depth > super::DEEPEST {
            return Err("too many classes within each other".into());
        }
        self.out.push('[');
        if self.take("^") {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            let c = self.rest.next().ok_or("a `[` without its `]`")?;
            match c {
                ']' if !is_first => break,
                '&' if self.take("&") => self.out.push_str("&&"),
                '[' if !self.starts_with(":") => {
                    self.class(flags)?;
                    self.check_after_set()?;
                }
                c => match self.member(c, flags)? {
                    Member::Set(set) => {
                        self.out.push_str(&set);
                        self.check_after_set()?;
                    }
                    Member::Letter(from) => self.letters(from, flags)?,
                },
            }
            is_first = false;
        }
        self.out.push(']');
        self.depth -= 1;
        Ok(())
    }

    /// A letter, or a range that begins with it.
    fn letters(&mut self, from: char, flags: Flags) -> Result<(), String> {
        write_literal(from, &mut self.out);
        if self.starts_with("-]") || !self.take("-") {
            return Ok(());
        }
        const UNCLEAR: &str = "a `-` in a class that is no range";
        let to = match self.rest.next().ok_or("a `[` without its `]`")? {
            '[' => return Err(UNCLEAR.into()),
            '&' if self.starts_with("&") => return Err(UNCLEAR.into()),
            c => c,
        };
        let Member::Letter(to) = self.member(to, flags)? else { return Err(UNCLEAR.into()) };
        if to < from {
            return Err("a range in a class that ends before it begins".into());
        }
        self.out.push('-');
        write_literal(to, &mut self.out);
        // After a range it stands for itself.
        match self.starts_with("--") && !self.starts_with("--]") {
            true => Err(UNCLEAR.into()),
            false => Ok(()),
        }
    }

    fn check_after_set(&self) -> Result<(), String> {
        match self.starts_with("-") && !self.starts_with("-]") {
            true => Err("a `-` in a class that is no range".into()),
            false => Ok(()),
        }
    }

    /// What `c` begins.
    fn member(&mut self, c: char, flags: Flags) -> Result<Member, String> {
        let set = match c {
            '[' => self.bracket()?,
            '\\' => match self.rest.next().ok_or("a backslash at its end")? {
                c @ ('d' | 'D' | 's' | 'S' | 'h' | 'H') => return Ok(Member::Set(format!("\\{c}"))),
                'w' => format!("[{WORD}]"),
                'W' => format!("[^{WORD}]"),
                c @ ('p' | 'P') => self.property(c == 'P')?,
                'b' => return Ok(Member::Letter('\u{8}')),
                c => {
                    let letter = self.escaped_letter(c)?;
                    return self.letter(letter, flags);
                }
            },
            c => return self.letter(c, flags),
        };
        match flags.ignores_case {
            true => Err("a class of letters in any case".into()),
            false => Ok(Member::Set(set)),
        }
    }

    fn letter(&self, c: char, flags: Flags) -> Result<Member, String> {
        if flags.ignores_case {
            check_case(c)?;
        }
        Ok(Member::Letter(c))
    }

    /// `[:alpha:]`, after its `[`.
    fn bracket(&mut self) -> Result<String, String> {
        self.rest.next();
        let other = self.take("^");
        let name: String = self.rest.by_ref().take_while(|c| *c != ':').collect();
        let set = posix(&name, other).filter(|_| self.rest.next() == Some(']'));
        set.ok_or_else(|| "a `[:` in a class that is none of POSIX's".into())
    }

    /// `\p{L}`, after its letter.
    pub(super) fn property(&mut self, other: bool) -> Result<String, String> {
        if !self.take("{") {
            return Err("`\\p` without braces".into());
        }
        let other = other != self.take("^");
        let name: String = self.rest.by_ref().take_while(|c| *c != '}').collect();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ')) {
            return Err("a `\\p{` without a property's name".into());
        }
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let known = match plain.to_ascii_lowercase().as_str() {
            // Here it is without symbols.
            "punct" => None,
            // Some numerals are in it or not, depending on the place.
            "word" => return Err("`\\p{Word}`".into()),
            plain => posix(plain, other),
        };
        Ok(known.unwrap_or_else(|| format!("\\{}{{{name}}}", if other { 'P' } else { 'p' })))
    }
}
