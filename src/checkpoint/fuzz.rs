//! Damaged and hostile files: whatever the bytes, a reader returns tensors that fit them, or a one-line error.
//!
//! Each property mutates a valid file or makes one up. `PROPTEST_CASES` sets how many are tried.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use proptest::prelude::*;

use super::file::File;
use super::{Checkpoint, ShardIndex, Tensor, export, gguf, golden, llm_c, packed, pytorch, safetensors, tensorflow};
use crate::analysis::parameters::{Costs, Parameters};
use crate::base::{DType, panels};
use crate::config::Config;
use crate::error::Result;
use crate::model::WeightType;

type Reader = fn(&File) -> Result<Vec<Tensor>>;

fn read_pytorch(file: &File) -> Result<Vec<Tensor>> {
    Ok(pytorch::read(file)?.tensors)
}

fn read_gguf(file: &File) -> Result<Vec<Tensor>> {
    let gguf = gguf::Gguf::read(file)?;
    // The metadata must not be trusted either.
    let _ = Config::from_gguf(&gguf);
    let _ = gguf.vocabulary();
    Ok(gguf.tensors)
}

fn read_packed(file: &File) -> Result<Vec<Tensor>> {
    packed::read(file, safetensors::read(file)?)
}

/// A packed file of a small model.
fn packed_file(dtype: DType) -> Vec<u8> {
    let config = Config::named("gpt2").unwrap();
    let config = Config { vocab_size: 9, n_positions: 3, n_embd: 32, n_layer: 1, n_inner: 32, n_head: 2, ..config };
    let checkpoint = Checkpoint::random(&config, WeightType::F32, 1).unwrap();
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    export::Export { checkpoint: &checkpoint, config: &config, dtype }.to_packed(&path).unwrap();
    std::fs::read(&path).unwrap()
}

fn read_llm_c(file: &File) -> Result<Vec<Tensor>> {
    let model = llm_c::read(file)?;
    assert!(model.weights.iter().all(|(id, tensor)| tensor.shape == id.shape(&model.config)));
    Ok(model.weights.into_iter().map(|(_, tensor)| tensor).collect())
}

/// Whatever the index says, the numbers are those of OpenAI's checkpoint among the fixtures.
fn read_tensorflow(file: &File) -> Result<Vec<Tensor>> {
    let path = golden::folder("openai_tf").join("model/model.ckpt.index");
    Ok(tensorflow::read(&File { path, bytes: file.bytes.clone() })?.tensors)
}

pub(super) fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(1500),
    }
}

/// What must hold for every answer of a reader.
fn check(reader: Reader, bytes: Vec<u8>) {
    let len = bytes.len();
    match reader(&File::of(bytes)) {
        Ok(tensors) => {
            for tensor in &tensors {
                let mut shape = tensor.shape.clone();
                if tensor.transposed {
                    shape.reverse();
                }
                let mut stored = (tensor.dtype, shape.clone());
                if let (true, &[rows, columns]) = (tensor.packed, &shape[..]) {
                    let (inputs, outputs) = if tensor.dtype.is_quantized() { (columns, rows) } else { (rows, columns) };
                    let (dtype, array) = panels::array(tensor.dtype, inputs, outputs).expect("panels of the type");
                    stored = (dtype, array.to_vec());
                    let numbers = rows.saturating_mul(columns).min(100_000);
                    tensor
                        .read("", 0, &mut vec![0.0; numbers / tensor.dtype.block_len() * tensor.dtype.block_len()])
                        .unwrap();
                }
                let (dtype, shape) = stored;
                assert_eq!(dtype.byte_len(&shape), Some(tensor.bytes.len()), "{tensor:?} of a file of {len} bytes");
            }
        }
        Err(error) => check_line(&error.to_string()),
    }
}

/// An error is one line that fits a screen.
pub(super) fn check_line(line: &str) {
    assert!(line.chars().count() < 1000 && !line.contains(char::is_control), "{line:?}");
}

/// The parameters of an accepted configuration can be counted in 64 bits.
fn check_config(json: &[u8]) {
    match Config::from_json(json, "FILE") {
        Ok(config) => {
            let costs = Costs::of(&config);
            assert_eq!(costs.f32_bytes / 4, Parameters::of(&config).total, "{config:?}");
            let cache = costs.kv_cache_bytes_full_context / config.n_positions as u64;
            assert_eq!(cache, costs.kv_cache_bytes_per_token, "{config:?}");
        }
        Err(error) => check_line(&error.to_string()),
    }
}

/// A change to a file. Positions count from the start or, if negative, from the end, where zip keeps its directory.
#[derive(Debug, Clone)]
pub(super) enum Mutation {
    Flip(i32, u8),
    Put(i32, Vec<u8>),
    Insert(i32, Vec<u8>),
    Remove(i32, usize),
    Truncate(usize),
}

pub(super) fn mutation() -> impl Strategy<Value = Mutation> {
    let place = || prop_oneof![-3000..3000i32, 0..64i32, -64..0i32];
    // Lengths and offsets are little-endian numbers of 4 or 8 bytes; extreme values are what breaks readers.
    let number = prop_oneof![
        prop::sample::select(vec![0, 1, 1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX, u64::MAX - 7, i64::MAX as u64]),
        any::<u64>(),
        0..100_000u64,
    ];
    let bytes = prop_oneof![
        number.clone().prop_map(|n| n.to_le_bytes().to_vec()),
        number.clone().prop_map(|n| (n as u32).to_le_bytes().to_vec()),
        number.prop_map(|n| n.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 1..9),
    ];
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, mask)| Mutation::Flip(at, mask)),
        4 => (place(), bytes.clone()).prop_map(|(at, bytes)| Mutation::Put(at, bytes)),
        1 => (place(), bytes).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (place(), 1..200usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        1 => any::<usize>().prop_map(Mutation::Truncate),
    ]
}

pub(super) fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let index = |at: i32, len: usize| (at as i64).rem_euclid(len.max(1) as i64) as usize;
    let len = bytes.len();
    match mutation {
        Mutation::Flip(at, mask) => {
            if let Some(byte) = bytes.get_mut(index(*at, len)) {
                *byte ^= mask;
            }
        }
        Mutation::Put(at, new) => {
            for (old, new) in bytes.iter_mut().skip(index(*at, len)).zip(new) {
                *old = *new;
            }
        }
        Mutation::Insert(at, new) => drop(bytes.splice(index(*at, len + 1)..index(*at, len + 1), new.iter().copied())),
        Mutation::Remove(at, count) => {
            let start = index(*at, len).min(len);
            bytes.drain(start..(start + count).min(len));
        }
        Mutation::Truncate(to) => bytes.truncate(to % (len + 1)),
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint");
    std::fs::read(fixtures.join(name)).unwrap()
}

/// Valid files of every format, each with its reader.
fn seeds() -> Vec<(Reader, Vec<u8>)> {
    let header = br#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"transformer.h.0.attn.c_attn.bias":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}"#;
    let small = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 32]].concat();
    vec![
        (safetensors::read, small),
        (read_pytorch, fixture("views.bin")),
        (read_pytorch, fixture("views_protocol4.bin")),
        (read_pytorch, fixture("views_legacy.bin")),
        (read_pytorch, fixture("nested.bin")),
        (read_pytorch, fixture("compressed.bin")),
        (read_gguf, fixture("tiny.gguf")),
        (read_llm_c, std::fs::read(golden::folder("llmc_fp32").join("model/gpt2_tiny.bin")).unwrap()),
        (read_packed, packed_file(DType::F32)),
        (read_packed, packed_file(DType::Q8_0)),
        (read_tensorflow, std::fs::read(golden::folder("openai_tf").join("model/model.ckpt.index")).unwrap()),
    ]
}

/// Pieces of pickles: instructions with likely operands.
fn pickle_piece() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec!["storage", "0", "cpu", "wte.weight", "state_dict", "model"])
        .prop_map(|text| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat());
    let global = prop::sample::select(vec![
        "collections\nOrderedDict\n",
        "torch._utils\n_rebuild_tensor_v2\n",
        "torch._utils\n_rebuild_parameter\n",
        "torch\nFloatStorage\n",
        "torch\nBoolStorage\n",
    ])
    .prop_map(|name| [b"c", name.as_bytes()].concat());
    prop_oneof![
        6 => prop::sample::select(b"()]}tRsuaeb012NQ.\x85\x86\x87\x88\x89\x93\x94".to_vec()).prop_map(|code| vec![code]),
        2 => (prop::sample::select(b"Kqh\x80".to_vec()), 0..4u8).prop_map(|(code, n)| vec![code, n]),
        1 => any::<i32>().prop_map(|n| [b"J", &n.to_le_bytes()[..]].concat()),
        1 => (0..12u8, any::<[u8; 12]>()).prop_map(|(len, bytes)| [&[0x8a, len], &bytes[..len as usize]].concat()),
        2 => text,
        2 => global,
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ]
}

/// The entries of an archive, without the folder in their names.
fn unpack(archive: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    (0..zip.len())
        .map(|index| {
            let mut entry = zip.by_index(index).unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (entry.name().unwrap().split_once('/').unwrap().1.to_owned(), data)
        })
        .collect()
}

fn pack(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in entries {
        zip.start_file(format!("m/{name}"), options).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An archive around a pickle, with a storage of the floats 0, 1, 2, ...
fn archive(program: Vec<u8>, len: u32) -> Vec<u8> {
    let storage = (0..len).flat_map(|n| (n as f32).to_le_bytes()).collect();
    pack(&[("data.pkl".into(), program), ("data/0".into(), storage)])
}

/// A pickle of a state dict with one view into storage `0`.
fn view_program(len: u32, offset: i32, axes: &[(i32, i32)]) -> Vec<u8> {
    let int = |n: i32| [b"J", &n.to_le_bytes()[..]].concat();
    let sizes = axes.iter().flat_map(|(size, _)| int(*size)).collect();
    let strides = axes.iter().flat_map(|(_, stride)| int(*stride)).collect();
    let start =
        b"}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000N";
    [
        start.to_vec(),
        int(len as i32),
        b"tQ".to_vec(),
        int(offset),
        b"(".to_vec(),
        sizes,
        b"t(".to_vec(),
        strides,
        b"ttRs.".to_vec(),
    ]
    .concat()
}

/// The numbers of a view into the storage 0, 1, 2, ...
fn view_numbers(offset: i64, axes: &[(i32, i32)]) -> Vec<f32> {
    match axes {
        [] => vec![offset as f32],
        _ if axes.iter().any(|(size, _)| *size == 0) => vec![],
        [(size, stride), inner @ ..] => {
            (0..*size).flat_map(|i| view_numbers(offset + i64::from(i) * i64::from(*stride), inner)).collect()
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn mutated_files_are_read_or_refused(
        seed in prop::sample::select(seeds()),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let (reader, mut bytes) = seed;
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        check(reader, bytes);
    }

    /// With the checksums right, so that mutations reach the entries.
    #[test]
    fn mutated_variables_are_read_or_refused(
        place in any::<prop::sample::Index>(),
        of_key in prop::bool::weighted(0.2),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let index = File::of(std::fs::read(golden::folder("openai_tf").join("model/model.ckpt.index")).unwrap());
        let mut entries = tensorflow::table::tests::read(&index.bytes).unwrap();
        let (key, value) = place.get_mut(&mut entries[..]);
        for mutation in &mutations {
            mutate(if of_key { key } else { value }, mutation);
        }
        check(read_tensorflow, tensorflow::table::tests::write(&entries));
    }

    #[test]
    fn mutated_pickles_are_read_or_refused(
        seed in prop::sample::select(vec!["views.bin", "views_protocol4.bin", "nested.bin"]),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let mut entries = unpack(fixture(seed));
        let program = entries.iter_mut().find(|(name, _)| name == "data.pkl").unwrap();
        for mutation in &mutations {
            mutate(&mut program.1, mutation);
        }
        check(read_pytorch, pack(&entries));
    }

    #[test]
    fn made_up_pickles_are_read_or_refused(pieces in prop::collection::vec(pickle_piece(), 0..60)) {
        check(read_pytorch, archive(pieces.concat(), 4));
    }

    #[test]
    fn views_are_gathered_or_refused(
        len in 0..40u32,
        offset in prop_oneof![Just(0), 0..6i32],
        axes in prop::collection::vec((prop_oneof![9 => 0..5i32, 1 => any::<i32>()], prop_oneof![9 => 0..9i32, 1 => any::<i32>()]), 0..4),
    ) {
        let file = File::of(archive(view_program(len, offset, &axes), len));
        if let Ok(tensors) = read_pytorch(&file) {
            let (numbers, _) = tensors[0].bytes.as_chunks();
            let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            prop_assert_eq!(numbers, view_numbers(offset.into(), &axes));
        }
    }

    #[test]
    fn mutated_configurations_are_read_or_refused(mutations in prop::collection::vec(mutation(), 1..6)) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/base/config.json");
        let mut json = std::fs::read(path).unwrap();
        for mutation in &mutations {
            mutate(&mut json, mutation);
        }
        check_config(&json);
    }

    #[test]
    fn made_up_configurations_are_read_or_refused(
        values in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "qkv_bias",
                    "activation_function", "layer_norm_epsilon", "bos_token_id", "eos_token_id", "tie_word_embeddings",
                ]),
                prop_oneof![
                    4 => prop::sample::select(vec![0, 1, -1, 1 << 14, 1 << 21, (1 << 21) + 1, i64::MAX, i64::MIN]).prop_map(|n| n.to_string()),
                    2 => any::<i64>().prop_map(|n| n.to_string()),
                    2 => any::<f64>().prop_map(|x| format!("{x:e}")),
                    1 => "\\PC{0,9}".prop_map(|text| serde_json::Value::from(text).to_string()),
                    1 => prop::sample::select(vec!["null", "true", "[]", "[1, -2]", "{}", "\"gpt2\"", "1e999", "[[[["]).prop_map(str::to_owned),
                ],
            ),
            0..8,
        ),
    ) {
        let pairs: Vec<String> = values.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        check_config(format!("{{{}}}", pairs.join(", ")).as_bytes());
    }

    #[test]
    fn mutated_indices_are_read_or_refused(mutations in prop::collection::vec(mutation(), 1..6)) {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/untied_f16");
        let mut json = std::fs::read(tiny.join("model.safetensors.index.json")).unwrap();
        for mutation in &mutations {
            mutate(&mut json, mutation);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors.index.json");
        std::fs::write(&path, &json).unwrap();
        match ShardIndex::read(&path) {
            Ok(index) => {
                let inside = |shard: &String| shard.split('/').all(|part| part != "..") && !shard.starts_with('/');
                prop_assert!(index.shards().iter().all(inside));
            }
            Err(error) => check_line(&error.to_string()),
        }
    }

    #[test]
    fn made_up_headers_are_read_or_refused(
        entries in prop::collection::vec(
            (
                prop_oneof!["[a-c]", "h\\.[0-9]\\.attn\\.bias"],
                prop_oneof![9 => Just("F32"), 9 => Just("U8"), 1 => Just("F4"), 1 => Just("X")],
                prop::collection::vec(prop_oneof![19 => 0..5u64, 1 => any::<u64>()], 0..4),
                prop_oneof![19 => Just(0u64), 1 => 0..5u64, 1 => any::<u64>()],
            ),
            0..4,
        ),
        data in prop_oneof![Just(0), 0..40u64],
    ) {
        // Each entry starts where the last one ended, plus what it skips.
        let mut end = 0u64;
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, dtype, shape, skip)| {
                let start = end.wrapping_add(*skip);
                let len = shape.iter().fold(if *dtype == "F32" { 4 } else { 1 }, |len: u64, n| len.wrapping_mul(*n));
                end = start.wrapping_add(len);
                format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        let json = format!("{{{}}}", entries.join(","));
        let mut bytes = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        bytes.resize(bytes.len() + end.min(500).saturating_add(data) as usize, 0);
        check(safetensors::read, bytes);
    }
}
