//! Cases with arbitrary command lines, made of the flags that the program's help lists.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use fastrand::Rng;

use crate::case::Case;
use crate::random::{one_in, pick, text};
use crate::seeds;

/// A flag of a subcommand.
#[derive(Debug, Default, PartialEq)]
struct Flag {
    name: String,
    /// What the help calls its value; empty if it takes none.
    value: String,
    /// The values that the help lists.
    choices: Vec<String>,
}

static FLAGS: OnceLock<Vec<(String, Vec<Flag>)>> = OnceLock::new();

/// Reads the program's help for the flags of each subcommand.
pub fn learn(program: &Path) {
    let help = |arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("the program can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands = BASES.map(|base| base.split_whitespace().next().expect("a base names a subcommand"));
    FLAGS.get_or_init(|| commands.iter().map(|&name| (name.to_owned(), flags(&help(&[name, "--help"])))).collect());
}

fn flags(help: &str) -> Vec<Flag> {
    let mut flags: Vec<Flag> = vec![];
    for line in help.lines() {
        let entry = line.trim_start();
        let is_flag = entry.starts_with('-') && !entry.starts_with("- ") && line.len() - entry.len() <= 6;
        if is_flag {
            let names = || entry.split([' ', '=', '[', ',', '.']).filter(|word| word.starts_with('-'));
            let name = names().find(|name| name.starts_with("--")).or(names().next()).unwrap_or_default();
            let value = entry.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap_or_default().0;
            flags.push(Flag { name: name.to_owned(), value: value.to_owned(), choices: vec![] });
        } else if let Some(flag) = flags.last_mut() {
            if let Some((_, choices)) = entry.split_once("[possible values: ") {
                flag.choices.extend(choices.trim_end_matches(']').split(", ").map(str::to_owned));
            } else if let Some((choice, _)) = entry.strip_prefix("- ").and_then(|rest| rest.split_once(':')) {
                flag.choices.push(choice.to_owned());
            }
        }
    }
    // These end a run before it begins.
    flags.retain(|flag| !["--help", "--version"].contains(&flag.name.as_str()));
    flags
}

fn value(rng: &mut Rng, flag: &Flag) -> String {
    const FILES: &str = "model|model/config.json|model/model.safetensors|rows.jsonl|text.txt|out.jsonl|out.svg|out.html|out.gguf|\
        out.safetensors|missing|missing/out.json|-|";
    const IDS: &str = "1 2 3|1,2|[1, 2]|1|-1|99999999|4294967296|1 x|１|[[1],[2]]|";
    const TEXTS: &str = "- item|---|-5 degrees|--|-|-n|--prompt|--prompt=x|Once upon| the|the|a=b|1=2|id:5";
    // Those that most flags take come first, and twice.
    const NUMBERS: &str = "1|2|3|4|0.5|0.9|1.5|1|2|3|4|0.5|0.9|1.5|0|0.0|1.0|5e-324|-1|-0.0|NaN|inf|-inf||x|0x10|+1| 1|1,2|1e999|\
        4294967296|18446744073709551616";
    let item = |rng: &mut Rng, list: &str| {
        let items: Vec<&str> = list.split('|').collect();
        pick(rng, &items).to_owned()
    };
    if !flag.choices.is_empty() && !one_in(rng, 5) {
        return flag.choices[rng.usize(..flag.choices.len())].clone();
    }
    let of_its_kind = match flag.value.as_str() {
        kind if kind.starts_with('F') || ["PATH", "DIR"].contains(&kind) => FILES,
        "IDS" => IDS,
        "SPEC" => "0.0|0.1=mean|1.attn|2.mlp=zero|0.mlp=mean|1.3|9.9|0.x|0.attn=|",
        "TEXT@L" => "Once@0|upon@1*-0.5|@1|Once@99|Once|Once@1*inf|a@b@2",
        "TEXT" | "RE" | "R" | "M" | "MODEL" | "TOKEN" => TEXTS,
        _ => NUMBERS,
    };
    match rng.u32(..12) {
        0 if one_in(rng, 2) => text(rng, "--prompt -n - -- id:5 a=b 1=2"),
        0 => item(rng, FILES),
        1 => item(rng, NUMBERS),
        _ => item(rng, of_its_kind),
    }
}

/// Flags that say where text comes from, or that need one of those.
const SOURCES: &str = "--prompt --file --ids --input --output --resume --batch-size --interactive --decode --random";

/// Command lines that work.
const BASES: [&str; 27] = [
    "generate --model demo -n 3 Once",
    "generate --model demo -n 3 Once --format json",
    "generate --model demo --max-new-tokens 4 --num-beams 2 --prompt Once",
    "generate --model model --ids 1,2,3 -n 3",
    "generate --model demo -n 2 --input rows.jsonl",
    "topk --model demo Once --format json",
    "topk --model model --ids 1,2",
    "topk --model model --ids 1,2,3 --ablate 0.1=mean",
    "generate --model demo -n 2 Once --steer-from upon --steer-against Once@2",
    "score --model demo --format json --file text.txt",
    "score --model demo --input rows.jsonl --output out.jsonl",
    "trace --model demo --hidden Once",
    "trace --model model --ids 1,2,3 --format json",
    "trace --model model --ids 1,2,3 --attribute id:4 --format json",
    "trace --model model --heads --length 4",
    "trace --model model --ids 1,2,3 --save out.safetensors --names transformer-lens --keep *",
    "patch --model model --clean-ids 1,2,3 --corrupt-ids 1,4,3 --answer id:5 --against id:6 --format json",
    "patch --model demo --clean Once --corrupt Twice --answer id:5 --against the",
    "embed --model model --ids 1,2,3 --format json",
    "tokenize Once",
    "tokenize --format json Once",
    "info --model model --format json",
    "info --model demo",
    "convert --model model --to f16 out.gguf",
    "bench --model model --prompt-tokens 2 -n 2 --repeat 1",
    "completions bash",
    "man .",
];

pub fn command_line(rng: &mut Rng) -> Case {
    let mut case = Case::default();
    for name in ["config.json", "model.safetensors"] {
        case.file(&format!("model/{name}"), seeds::read(&format!("tiny/base/{name}")));
    }
    case.file("text.txt", b"The theory of relativity".into());
    case.file("rows.jsonl", b"{\"id\":1,\"prompt\":\"Once\"}\n{\"id\":2,\"text\":\"upon\"}\n".into());
    let at = rng.usize(..BASES.len());
    let mut words: Vec<String> = BASES[at].split_whitespace().map(str::to_owned).collect();
    let flags = &FLAGS.get().expect("the flags were read at the start")[at].1;
    for _ in 0..rng.usize(1..4) {
        if flags.is_empty() {
            break;
        }
        let flag = &flags[rng.usize(..flags.len())];
        // A second source of text is refused at once.
        if SOURCES.contains(&flag.name) && !one_in(rng, 6) {
            continue;
        }
        let at = if one_in(rng, 8) { rng.usize(1..=words.len()) } else { words.len() };
        let mut new = vec![flag.name.clone()];
        if !flag.value.is_empty() || one_in(rng, 30) {
            let value = value(rng, flag);
            if one_in(rng, 3) {
                new[0] = format!("{}={value}", flag.name);
            } else if !one_in(rng, 30) {
                new.push(value);
            }
        }
        words.splice(at..at, new);
    }
    match rng.u32(..24) {
        0 => words.push(text(rng, "-- - extra --unknown -é --model --prompt")),
        1 => {
            let at = rng.usize(..words.len());
            words.remove(at);
        }
        _ => {}
    }
    for word in words {
        case.arg(word);
    }
    case.stdin = pick(rng, &["", "Once upon", "1 2 3\n", "{\"id\":1,\"prompt\":\"a\"}\n"]).into();
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_help() {
        let help = "Model:\n  -m, --model <MODEL>\n          A - hub id\n      --offline\n          No net\n      \
                    --sample[=<BOOL>]\n          x [possible values: true, false]\n  -k <K>\n          - none: no\n";
        let flag = |name: &str, value: &str, choices: &[&str]| Flag {
            name: name.into(),
            value: value.into(),
            choices: choices.iter().map(|&choice| choice.into()).collect(),
        };
        let expected = [
            flag("--model", "MODEL", &[]),
            flag("--offline", "", &[]),
            flag("--sample", "BOOL", &["true", "false"]),
            flag("-k", "K", &["none"]),
        ];
        assert_eq!(flags(help), expected);
    }
}
