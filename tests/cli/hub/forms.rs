//! Checkpoints of other forms, and adapters, from the (fake) hub.

use std::path::Path;

use crate::fake_hub::files_of;
use crate::hub::{ID, Scene};

/// What a repository may hold instead of transformers' files.
#[test]
fn other_forms_and_adapters_are_fetched_whole() {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    for name in ["gguf_split", "nanogpt_bias", "llmc_fp32", "openai_tf"] {
        let scene = Scene::empty();
        let folder = formats.join(name).join("model");
        scene.hub.add(ID, files_of(&folder));
        let topk = |model: &str| scene.run(&["topk", "-m", model, "--ids", "1 2"]).succeeds().stdout();
        assert_eq!(topk(ID), topk(folder.to_str().unwrap()), "{name}");
        scene.hub.take_requests();
        topk(ID);
        assert_eq!(scene.hub.take_requests().len(), 0, "{name}");
    }
    let scene = Scene::with("base");
    let adapter = formats.join("lora_c_attn/adapter");
    scene.hub.add("someone/adapter", files_of(&adapter));
    let topk = |more: &[&str]| {
        let arguments = [&["topk", "-m", ID, "--ids", "1 2 3", "--adapter"], more].concat();
        scene.run(&arguments).succeeds().stdout()
    };
    assert_eq!(topk(&["someone/adapter"]), topk(&[adapter.to_str().unwrap()]));
    scene.hub.take_requests();
    topk(&["someone/adapter", "--offline"]);
    assert_eq!(scene.hub.take_requests().len(), 0);
    scene.run(&["topk", "-m", ID, "--ids", "1", "--adapter", ID]).fails(1, &["adapter_config.json"]);
}
