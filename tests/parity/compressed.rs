//! Files that `gpt2 compress` wrote on another processor: here they give the same bytes, and the bytes the same files.

use std::ops::ControlFlow;
use std::path::Path;

use gpt2::compression::Codec;
use gpt2::compression::format::Reader;
use gpt2::model::LoadOptions;
use gpt2::pipeline::Pipeline;
use gpt2::source::{self, SourceOptions};

#[test]
fn compressed_files_are_the_same_on_every_processor() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compress");
    let text = std::fs::read(folder.join("text.bin")).unwrap();
    let opened = source::open("demo", &SourceOptions::default()).unwrap();
    for name in ["demo.gpt2z", "demo-q8_0.gpt2z"] {
        let path = folder.join(name);
        let file = std::fs::read(&path).unwrap();
        let mut reader = Reader::new(&file[..], &path).unwrap();
        let header = reader.header().clone();
        let weights = header.weights().unwrap();
        let pipeline = Pipeline::load(&opened, LoadOptions { weights, ..LoadOptions::default() }).unwrap();
        let codec = Codec::of_file(&header, &path, &opened, &pipeline, weights).unwrap();
        let progress = &mut |_| ControlFlow::Continue(());
        let mut back = vec![];
        let read = codec.decompress(&mut reader, (&mut back, &path), progress).unwrap();
        assert!(back == text, "{name}");
        let mut again = vec![];
        let written = codec.compress((&text[..], &path), (&mut again, &path), progress).unwrap();
        assert!(again == file, "{name}");
        assert_eq!(read, written, "{name}");
    }
}
