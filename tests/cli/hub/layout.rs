//! What is fetched, and where it lies in the cache.

use super::*;

#[test]
fn a_download_uses_the_shared_layout_and_is_not_repeated() {
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();

    let link = scene.snapshot().join(WEIGHTS);
    let blob = scene.blob("base", WEIGHTS);
    let target = format!("../../blobs/{}", blob.file_name().unwrap().display());
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(&target));
    assert_eq!(std::fs::read(&link).unwrap(), fixture("base", WEIGHTS));
    assert_eq!(std::fs::read(scene.snapshot().join("config.json")).unwrap(), fixture("base", "config.json"));
    assert_eq!(std::fs::read_to_string(scene.repository().join("refs/main")).unwrap(), COMMIT);
    assert!(scene.repository().join(".no_exist").join(COMMIT).join("tokenizer.json").is_file());
    let blobs = scene.repository().join("blobs").read_dir().unwrap().count();
    assert_eq!(blobs, 2, "config and weights, nothing else");
    assert!(!scene.hub.take_requests().is_empty());

    scene.info(ID, &[]).succeeds();
    scene.info(ID, &["--revision", COMMIT]).succeeds();
    scene.info(ID, &["--offline"]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0, "the cache has it all");
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let scene = Scene::with("base");
    const OLD: &str = "89abcdef0123456789abcdef0123456789abcdef";
    scene.hub.add_commit(ID, OLD, &["v1.0", "refs/pr/2"], files_of(&tiny("erf_inner")));
    for revision in ["v1.0", "refs/pr/2", OLD] {
        let other = scene.info(ID, &["--revision", revision]).succeeds().json();
        assert_eq!(
            other["parameters"],
            scene.info(tiny("erf_inner").to_str().unwrap(), &[]).succeeds().json()["parameters"]
        );
    }
    let main = scene.info(ID, &[]).succeeds().json();
    assert_eq!(main["parameters"], scene.info(tiny("base").to_str().unwrap(), &[]).succeeds().json()["parameters"]);
    assert_eq!(std::fs::read_to_string(scene.repository().join("refs/refs/pr/2")).unwrap(), OLD);

    scene.hub.take_requests();
    scene.info(ID, &["--revision", "v1.0"]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0);

    scene.info(ID, &["--revision", "v2.0"]).env("HF_TOKEN", TOKEN).fails(1, &[ID, "`v2.0`", "revision"]);
    scene.info(ID, &["--revision", "../../etc"]).fails(2, &["`../../etc`", "revision"]);
    scene.info("demo", &["--revision", "v1.0"]).fails(2, &["`v1.0`", "demo"]);
}

#[test]
fn shards_and_pytorch_files_are_fetched_if_there_is_no_single_file() {
    for (checkpoint, weights) in [
        (
            "untied_f16",
            &["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"][..],
        ),
        ("inverse", &["pytorch_model.bin"]),
    ] {
        let scene = Scene::with(checkpoint);
        let fetched = scene.info(ID, &["--tensors"]).succeeds().json();
        let local = scene.info(tiny(checkpoint).to_str().unwrap(), &["--tensors"]).succeeds().json();
        assert_eq!(fetched["tensors"], local["tensors"]);
        for name in weights {
            assert_eq!(std::fs::read(scene.snapshot().join(name)).unwrap(), fixture(checkpoint, name), "{name}");
        }
        scene.hub.take_requests();
        scene.info(ID, &[]).succeeds();
        assert_eq!(scene.hub.take_requests().len(), 0);
    }
}

#[test]
fn a_single_gguf_file_is_a_complete_model() {
    let scene = Scene::empty();
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats/gguf_user_defined/model/tiny-f32.gguf");
    scene.hub.add(ID, Files::from([("tiny.gguf".to_owned(), std::fs::read(&path).unwrap())]));
    let fetched = scene.info(ID, &["--tensors"]).succeeds().json();
    assert_eq!(fetched["tensors"], scene.info(path.to_str().unwrap(), &["--tensors"]).succeeds().json()["tensors"]);
    scene.hub.take_requests();
    scene.info(ID, &["--offline"]).succeeds();
    scene.info(ID, &[]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0);
}

#[test]
fn safetensors_are_preferred_and_nothing_unneeded_is_fetched() {
    let scene = Scene::empty();
    let mut files = files_of(&tiny("base"));
    for name in ["pytorch_model.bin", "tf_model.h5", "README.md", "vocab.json", "merges.txt", "tokenizer.json"] {
        files.insert(name.to_owned(), b"{}".to_vec());
    }
    scene.hub.add(ID, files.clone());
    scene.info(ID, &[]).succeeds();
    let fetched: Vec<_> = scene.snapshot().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(fetched.len(), 3, "config.json, model.safetensors and tokenizer.json, not {fetched:?}");

    // vocab.json and merges.txt are enough without a tokenizer.json; the published GPT-2 needs neither.
    files.remove("tokenizer.json");
    scene.hub.add("someone/pair", files.clone());
    scene.info("someone/pair", &[]).succeeds();
    assert!(scene.home.path().join("hub/models--someone--pair/snapshots").join(COMMIT).join("merges.txt").exists());
    scene.hub.add("openai-community/gpt2", files);
    // A folder of that name, such as a checkout, takes precedence only if it contains a model.
    let checkout = tempfile::tempdir().unwrap();
    std::fs::create_dir(checkout.path().join("gpt2")).unwrap();
    let model = scene.info("gpt2", &[]).current_dir(checkout.path()).succeeds().json();
    assert_eq!(model["model"], "openai-community/gpt2");
    assert!(
        !scene
            .home
            .path()
            .join("hub/models--openai-community--gpt2/snapshots")
            .join(COMMIT)
            .join("merges.txt")
            .exists()
    );
}

#[test]
fn a_mirror_without_listings_works() {
    for checkpoint in ["base", "untied_f16", "inverse"] {
        let scene = Scene::with(checkpoint);
        scene.hub.fail(usize::MAX, "GET", "/api/models", Fault::Status(404));
        scene.info(ID, &[]).succeeds();
        scene.info("someone/nothing", &[]).env("HF_TOKEN", TOKEN).fails(1, &["someone/nothing", "not found"]);
        scene.hub.take_requests();
        scene.info(ID, &[]).succeeds();
        assert_eq!(scene.hub.take_requests().len(), 0);
    }
}

#[test]
fn other_architectures_are_refused_before_their_weights_are_fetched() {
    let scene = Scene::empty();
    let mut files = files_of(&tiny("base"));
    files.insert("config.json".to_owned(), br#"{"model_type": "llama"}"#.to_vec());
    scene.hub.add("someone/llama", files);
    scene.info("someone/llama", &[]).fails(1, &["config.json", "llama"]);
    let kinds: &[(&[&str], &[&str])] = &[
        (&["config.json", "README.md"], &["no weights", "model.safetensors", "pytorch_model.bin", "*.gguf"]),
        (&["config.json", "tf_model.h5", "flax_model.msgpack"], &["tf_model.h5", "Keras"]),
        (&["model.safetensors"], &["config.json"]),
        (&["a.gguf", "b.gguf"], &["several files with weights", "a.gguf"]),
    ];
    for (number, (names, words)) in kinds.iter().enumerate() {
        let files = names.iter().map(|name| ((*name).to_owned(), fixture("base", "config.json"))).collect::<Files>();
        let id = format!("someone/kind{number}");
        scene.hub.add(&id, files);
        scene.info(&id, &[]).fails(1, &[&[id.as_str()], *words].concat());
    }
    assert!(scene.hub.take_requests().iter().all(|request| !request.to_cdn));
}

/// As huggingface_hub does it: `os.path.expandvars(os.path.expanduser(path))`.
#[test]
fn the_cache_is_found_through_a_tilde_and_variables() {
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();
    scene.hub.take_requests();
    let home = scene.home.path();
    let (parent, name) = (home.parent().unwrap(), home.file_name().unwrap().to_str().unwrap());
    for path in [format!("~/{name}"), "$PARENT/$NAME".to_owned(), format!("${{PARENT}}/{name}")] {
        let run = scene.info(ID, &["--offline"]).env("HOME", parent).env("PARENT", parent).env("NAME", name);
        run.env("HF_HOME", &path).succeeds();
        let run = scene.info(ID, &["--offline"]).env("HOME", parent).env("PARENT", parent).env("NAME", name);
        run.env("HF_HOME", "/nonexistent").env("HF_HUB_CACHE", format!("{path}/hub")).succeeds();
    }
    assert_eq!(scene.hub.take_requests().len(), 0);
}

/// Python's `huggingface_hub` finds what was downloaded here, and vice versa. Needs that package, so it runs only on
/// demand: `PYTHON=python3 cargo test --release shared_with -- --ignored`.
#[test]
#[ignore = "needs Python with huggingface_hub; the variable PYTHON names it"]
fn the_cache_is_shared_with_huggingface_hub() {
    let python = |scene: &Scene, offline: &str, code: &str| {
        let interpreter = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let code = format!("from huggingface_hub import *\nprint({code})");
        let mut command = Command::new(interpreter);
        command.args(["-c", &code]).env("HF_ENDPOINT", scene.hub.url()).env("HF_HOME", scene.home.path());
        let output = command.env("HF_HUB_OFFLINE", offline).env("NO_PROXY", "127.0.0.1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for checkpoint in ["base", "untied_f16", "inverse"] {
        let scene = Scene::with(checkpoint);
        scene.info(ID, &[]).succeeds();
        scene.hub.take_requests();
        for name in files_of(&tiny(checkpoint)).keys() {
            let code = format!("hf_hub_download('{ID}', '{name}')");
            let path = scene.snapshot().join(name);
            assert_eq!(python(&scene, "1", &code), path.to_str().unwrap(), "found offline");
            assert_eq!(python(&scene, "0", &code), path.to_str().unwrap());
            assert_eq!(downloads(&scene.hub.take_requests(), name).len(), 0, "Python downloads {name} again");
        }

        let scene = Scene::with(checkpoint);
        let path = python(&scene, "0", &format!("snapshot_download('{ID}')"));
        assert_eq!(path, scene.snapshot().to_str().unwrap());
        scene.hub.take_requests();
        scene.info(ID, &["--offline"]).succeeds();
        assert_eq!(scene.hub.take_requests().len(), 0);
        scene.info(ID, &[]).succeeds();
        let requests = scene.hub.take_requests();
        assert_eq!(requests.len(), 1, "only the listing, which shows that there is no tokenizer: {requests:?}");
    }
}
