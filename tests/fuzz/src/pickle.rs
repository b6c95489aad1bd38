//! Pickles as lists of instructions, and the two forms of PyTorch's files around them.

use fastrand::Rng;

use crate::random::{damage, few, number, one_in, pick, text};
use crate::zip;

/// An instruction of a pickle; `argument` lacks the length in front of it.
#[derive(Debug, Clone, PartialEq)]
struct Op {
    code: u8,
    argument: Vec<u8>,
}

/// How the argument of an instruction is written.
enum Form {
    Fixed(usize),
    /// So many lines.
    Lines(usize),
    /// A length of so many bytes, then the argument.
    Counted(usize),
}

fn form(code: u8) -> Form {
    match code {
        0x80 | b'K' | b'h' | b'q' | 0x82 => Form::Fixed(1),
        b'M' | 0x83 => Form::Fixed(2),
        b'J' | b'j' | b'r' | 0x84 => Form::Fixed(4),
        b'G' | 0x95 => Form::Fixed(8),
        b'c' | b'i' => Form::Lines(2),
        b'I' | b'L' | b'F' | b'S' | b'V' | b'P' | b'g' | b'p' => Form::Lines(1),
        b'U' | b'C' | 0x8a | 0x8c => Form::Counted(1),
        b'T' | b'X' | b'B' | 0x8b => Form::Counted(4),
        0x8d | 0x8e | 0x96 => Form::Counted(8),
        _ => Form::Fixed(0),
    }
}

/// Splits the pickle at the start of `bytes`, up to its STOP, and returns what comes after it.
fn parse(mut bytes: &[u8]) -> (Vec<Op>, &[u8]) {
    let mut ops = vec![];
    while let Some((&code, rest)) = bytes.split_first() {
        let (start, len) = match form(code) {
            Form::Fixed(len) => (0, len),
            Form::Lines(count) => {
                let mut ends = rest.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(at, _)| at + 1);
                (0, ends.nth(count - 1).unwrap_or(rest.len()))
            }
            Form::Counted(width) => {
                let mut len = [0; 8];
                len[..width].copy_from_slice(&rest[..width]);
                (width, u64::from_le_bytes(len) as usize)
            }
        };
        ops.push(Op { code, argument: rest[start..start + len].to_vec() });
        bytes = &rest[start + len..];
        if code == b'.' {
            break;
        }
    }
    (ops, bytes)
}

fn write(rng: &mut Rng, ops: &[Op], lies: bool) -> Vec<u8> {
    let mut bytes = vec![];
    let liar = if lies && one_in(rng, 8) { rng.usize(..ops.len().max(1)) } else { usize::MAX };
    for (at, Op { code, argument }) in ops.iter().enumerate() {
        bytes.push(*code);
        if let Form::Counted(width) = form(*code) {
            let len = if at == liar { number(rng) } else { argument.len() as u64 };
            bytes.extend(&len.to_le_bytes()[..width]);
        }
        bytes.extend(argument);
    }
    bytes
}

/// Changes one instruction. `words` are names that mean something in such a file.
fn mutate_op(rng: &mut Rng, ops: &mut Vec<Op>, words: &str) {
    const CODES: &[u8] = b"(.0123FGIJKLMNPRQSTUVX\\abcdeghilojpqrstu}])\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98";
    const GLOBALS: [&str; 12] = [
        "os\nsystem\n",
        "torch\nFloatStorage\n",
        "torch\nHalfStorage\n",
        "torch\nBFloat16Storage\n",
        "torch\nDoubleStorage\n",
        "torch\nComplexFloatStorage\n",
        "torch._utils\n_rebuild_tensor_v2\n",
        "torch._utils\n_rebuild_parameter\n",
        "torch._tensor\n_rebuild_from_type_v2\n",
        "collections\nOrderedDict\n",
        "numpy.core.multiarray\nscalar\n",
        "__builtin__\neval\n",
    ];
    if ops.is_empty() {
        return;
    }
    let at = rng.usize(..ops.len());
    let other = rng.usize(..ops.len());
    match rng.u32(..10) {
        0 => drop(ops.remove(at)),
        1 => ops.insert(other, ops[at].clone()),
        2 => ops.swap(at, other),
        3 => ops[at].code = pick(rng, CODES),
        4 => {
            let deep = Op { code: pick(rng, b"(]})2"), argument: vec![] };
            ops.splice(at..at, vec![deep; pick(rng, &[1, 3, 1000, 100_000])]);
        }
        _ => {
            // The next instruction that has an argument.
            let Some(op) = ops[at..].iter_mut().find(|op| !op.argument.is_empty()) else { return };
            match form(op.code) {
                Form::Fixed(len) => op.argument = number(rng).to_le_bytes()[..len].to_vec(),
                Form::Lines(2) => op.argument = pick(rng, &GLOBALS).into(),
                Form::Lines(_) => op.argument = format!("{}\n", text(rng, words)).into(),
                Form::Counted(width) => {
                    op.argument = text(rng, words).into();
                    op.argument.truncate(if width == 1 { 255 } else { usize::MAX });
                }
            }
        }
    }
}

/// Mutates a pickle once or a few times.
fn mutate_pickle(rng: &mut Rng, bytes: &[u8], words: &str) -> Vec<u8> {
    let (mut ops, rest) = parse(bytes);
    for _ in 0..few(rng) {
        mutate_op(rng, &mut ops, words);
    }
    let mut bytes = write(rng, &ops, true);
    bytes.extend(rest);
    bytes
}

/// Mutates a PyTorch file of either form.
pub fn mutate(rng: &mut Rng, file: &[u8], words: &str) -> Vec<u8> {
    let mut bytes =
        if file.starts_with(b"PK") { mutate_zip(rng, file, words) } else { mutate_legacy(rng, file, words) };
    if one_in(rng, 12) {
        damage(rng, &mut bytes);
    }
    bytes
}

fn mutate_zip(rng: &mut Rng, file: &[u8], words: &str) -> Vec<u8> {
    let mut entries = zip::read(file);
    let kind = rng.u32(..10);
    if kind == 0 {
        zip::mutate_entries(rng, &mut entries);
    } else if kind < 8 {
        let pickle =
            entries.iter_mut().find(|entry| entry.name.ends_with("data.pkl")).expect("a PyTorch file has a pickle");
        pickle.data = mutate_pickle(rng, &pickle.data, words);
    }
    let (mut bytes, fields) = zip::write(&entries);
    if kind >= 8 {
        let (at, width) = pick(rng, &fields);
        bytes[at..at + width].copy_from_slice(&number(rng).to_le_bytes()[..width]);
    }
    bytes
}

/// A magic number, a version, facts about the machine, the object and the names of storages, all pickles, then the storages.
fn mutate_legacy(rng: &mut Rng, file: &[u8], words: &str) -> Vec<u8> {
    let mut bytes = vec![];
    let mut rest = file;
    let target = pick(rng, &[0, 1, 2, 3, 3, 3, 3, 4, 4, 5]);
    for part in 0..5 {
        let (_, after) = parse(rest);
        let pickle = &rest[..rest.len() - after.len()];
        bytes.extend(if part == target { mutate_pickle(rng, pickle, words) } else { pickle.to_vec() });
        rest = after;
    }
    let mut storages = rest.to_vec();
    if target == 5 {
        damage(rng, &mut storages);
    }
    bytes.extend(storages);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn pickles_come_back_as_they_were() {
        for path in ["checkpoint/views.bin", "checkpoint/views_protocol4.bin", "formats/nanogpt_compiled/model/ckpt.pt"]
        {
            let entries = zip::read(&seeds::read(path));
            let pickle = &entries.iter().find(|entry| entry.name.ends_with("data.pkl")).unwrap().data;
            let (ops, rest) = parse(pickle);
            assert_eq!(write(&mut Rng::with_seed(0), &ops, false), *pickle);
            assert!(rest.is_empty() && ops.len() > 50);
        }
    }
}
