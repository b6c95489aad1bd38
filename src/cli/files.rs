//! The files that flags write: one table of their kinds.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::builder::{PathBufValueParser, TypedValueParser};

/// What a flag of a subcommand can write, by the extension of the file's name.
struct Written {
    /// All subcommands with the flag, if none.
    subcommand: Option<&'static str>,
    /// The argument's id.
    id: &'static str,
    /// As the user writes it.
    flag: &'static str,
    extensions: &'static [&'static str],
}

const WRITTEN: [Written; 4] = [
    Written { subcommand: None, id: "svg", flag: "--svg", extensions: &["svg", "png"] },
    Written { subcommand: None, id: "html", flag: "--html", extensions: &["html", "htm"] },
    Written { subcommand: None, id: "save", flag: "--save", extensions: &["safetensors", "npz"] },
    Written { subcommand: Some("convert"), id: "output", flag: "OUT", extensions: &["gguf", "safetensors"] },
];

/// What is wrong with the name of a file that a flag is to write, if it promises content of another kind. A name without
/// an extension, such as `/dev/stdout`, promises nothing.
pub fn fault(subcommand: &str, has: &dyn Fn(&str) -> bool, matches: &ArgMatches) -> Option<String> {
    let mut flags = WRITTEN.iter().filter(|written| written.subcommand.is_none_or(|name| name == subcommand));
    flags.find_map(|written| {
        if !has(written.id) {
            return None;
        }
        let path = matches.try_get_one::<PathBuf>(written.id).ok()??;
        written.refuses(path).then(|| written.advice(path))
    })
}

/// Parses the name of a file to write, which stdout is not.
pub fn output() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path == Path::new("-") {
        true => Err("takes a file, not -; leave it out for stdout"),
        false => Ok(path),
    })
}

impl Written {
    fn refuses(&self, path: &Path) -> bool {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        extension.is_some_and(|extension| !self.extensions.contains(&&*extension))
    }

    fn advice(&self, path: &Path) -> String {
        let kinds: Vec<String> = self.extensions.iter().map(|extension| format!(".{extension}")).collect();
        let (flag, name, kinds) = (self.flag, path.display(), kinds.join(" or "));
        format!("{flag} {name} must end in {kinds}, the kind of file that it writes")
    }
}
