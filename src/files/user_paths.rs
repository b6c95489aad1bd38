//! Paths as users write them: in environment variables, with `~` and `$VARIABLES`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The path in an environment variable, expanded; `None` if it is empty.
#[must_use]
pub fn by_environment(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|value| !value.is_empty())?;
    Some(expanded(path))
}

/// A path whose `~` at the beginning, `$NAME` and `${NAME}` are replaced, as Python's `expandvars(expanduser(path))`
/// does: what is not set stays as written.
#[must_use]
pub fn expanded(path: OsString) -> PathBuf {
    expanded_with(path, home(), |name| std::env::var_os(name))
}

fn expanded_with(path: OsString, home: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let path = match (Path::new(&path).strip_prefix("~"), home) {
        // Joining nothing would add a slash.
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home.into_os_string(),
        (Ok(rest), Some(home)) => home.join(rest).into_os_string(),
        _ => path,
    };
    // A path that is not UTF-8 has been typed by nobody.
    let Some(text) = path.to_str().filter(|text| text.contains('$')) else { return path.into() };
    let mut whole = OsString::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        whole.push(before);
        let plain = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let (name, end) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => (&after[..plain], plain),
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => whole.push(value),
            None => whole.push(&rest[before.len()..before.len() + 1 + end]),
        }
        rest = &after[end..];
    }
    whole.push(rest);
    whole.into()
}

/// The user's home folder.
#[must_use]
pub fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from Python: `os.path.expandvars(os.path.expanduser(path))`.
    #[test]
    fn paths_are_expanded_as_python_does() {
        let variable = |name: &str| match name {
            "USER" => Some("ann".into()),
            "DATA" => Some("/data".into()),
            _ => None,
        };
        for (path, whole) in [
            ("~", "/home/ann"),
            ("~/hf", "/home/ann/hf"),
            ("$DATA/hf", "/data/hf"),
            ("${DATA}/$USER", "/data/ann"),
            ("/a/$USER_x/$NONE/${NONE}/$", "/a/$USER_x/$NONE/${NONE}/$"),
            ("/a/${USER}x$USER-y", "/a/annxann-y"),
            ("/a/~/${", "/a/~/${"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(expanded_with(path.into(), Some("/home/ann".into()), variable), Path::new(whole), "{path}");
        }
        assert_eq!(expanded_with("~/hf".into(), None, variable), Path::new("~/hf"));
    }
}
