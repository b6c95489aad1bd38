//! What someone else has put into a shared cache: nothing is written through it.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A file that does not belong to the cache.
const PRECIOUS: &str = "someone's work";

/// A scene with a file and a folder outside the cache.
struct Planted {
    scene: Scene,
    outside: tempfile::TempDir,
}

impl Planted {
    fn new() -> Self {
        let planted = Self { scene: Scene::with("base"), outside: tempfile::tempdir().unwrap() };
        std::fs::write(planted.victim(), PRECIOUS).unwrap();
        std::fs::create_dir(planted.folder()).unwrap();
        planted
    }

    fn victim(&self) -> PathBuf {
        self.outside.path().join("victim")
    }

    fn folder(&self) -> PathBuf {
        self.outside.path().join("folder")
    }

    /// A path in the repository's folder of the cache, whose parent exists.
    fn at(&self, path: &str) -> PathBuf {
        let path = self.scene.repository().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Runs, and checks that nothing outside has changed.
    fn run(&self, what: &str) -> Ended {
        let ended = bounded(&self.scene, self.scene.info(ID, &[]), what);
        assert_eq!(std::fs::read_to_string(self.victim()).unwrap(), PRECIOUS, "{what}\n{}", ended.stderr);
        assert_eq!(self.folder().read_dir().unwrap().count(), 0, "{what}\n{}", ended.stderr);
        assert_eq!(self.outside.path().read_dir().unwrap().count(), 2, "{what}\n{}", ended.stderr);
        ended
    }

    /// Runs, and expects the right files.
    fn succeeds(&self, what: &str) {
        let ended = self.run(what);
        assert_eq!(ended.code, Some(0), "{what}\n{}", ended.stderr);
        assert_eq!(std::fs::read(self.scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS), "{what}");
        assert!(self.scene.blob("base", WEIGHTS).symlink_metadata().unwrap().is_file(), "{what}");
        assert_eq!(std::fs::read_to_string(self.scene.repository().join("refs/main")).unwrap(), super::super::COMMIT);
    }

    fn fails(&self, what: &str, words: &[&str]) {
        let ended = self.run(what);
        assert_eq!(ended.code, Some(1), "{what}\n{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "`{word}` is not in\n{}\nof {what}", ended.stderr);
        }
    }
}

fn name_of(path: PathBuf) -> String {
    format!("blobs/{}", path.file_name().unwrap().to_str().unwrap())
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let scene = Scene::with("base");
    let (partial, blob) = (name_of(scene.partial("base", WEIGHTS)), name_of(scene.blob("base", WEIGHTS)));
    let small = name_of(scene.partial("base", "config.json"));
    let snapshot = format!("snapshots/{}", super::super::COMMIT);
    let (config, weights) = (format!("{snapshot}/config.json"), format!("{snapshot}/{WEIGHTS}"));
    for path in [partial.as_str(), &small, &blob, "refs/main", &config, &weights] {
        let planted = Planted::new();
        symlink(planted.victim(), planted.at(path)).unwrap();
        planted.succeeds(&format!("a link at {path}"));

        let planted = Planted::new();
        symlink(planted.outside.path().join("new"), planted.at(path)).unwrap();
        planted.succeeds(&format!("a link to nothing at {path}"));

        let planted = Planted::new();
        symlink("/dev/zero", planted.at(path)).unwrap();
        planted.succeeds(&format!("a link to a device at {path}"));

        let planted = Planted::new();
        pipe(&planted.at(path));
        planted.succeeds(&format!("a pipe at {path}"));
    }
    let planted = Planted::new();
    std::fs::hard_link(planted.victim(), planted.at(&partial)).unwrap();
    planted.succeeds("another name of a file");
    // What was not asked for is only noted, if it can be.
    let planted = Planted::new();
    let absent = format!(".no_exist/{}/tokenizer.json", super::super::COMMIT);
    symlink(planted.outside.path().join("new"), planted.at(&absent)).unwrap();
    planted.succeeds("a link in place of a note");
}

#[test]
fn a_link_in_place_of_a_lock_is_not_followed() {
    let planted = Planted::new();
    let lock = planted.scene.blob("base", WEIGHTS).with_extension("lock");
    let locks = planted.scene.home.path().join("hub/.locks/models--someone--tiny");
    std::fs::create_dir_all(&locks).unwrap();
    symlink(planted.outside.path().join("new"), locks.join(lock.file_name().unwrap())).unwrap();
    planted.succeeds("a link in place of a lock");
    std::fs::remove_dir_all(planted.scene.home.path().join("hub")).unwrap();
    std::fs::create_dir_all(locks.parent().unwrap()).unwrap();
    symlink(planted.folder(), &locks).unwrap();
    let words = ["cannot write", ".locks", "a link there leads out of the cache", "remove the link"];
    planted.fails("a link in place of the folder of locks", &words);
    let all = locks.parent().unwrap();
    for (to, words) in [(planted.folder(), &words[..]), (planted.outside.path().join("new"), &words[..2])] {
        std::fs::remove_dir_all(planted.scene.home.path().join("hub")).unwrap();
        std::fs::create_dir_all(all.parent().unwrap()).unwrap();
        symlink(to, all).unwrap();
        planted.fails("a link in place of the folder of all locks", words);
    }
}

#[test]
fn a_folder_that_leads_out_of_the_cache_is_refused() {
    let commit = format!("snapshots/{}", super::super::COMMIT);
    for path in ["blobs", "refs", "snapshots", &commit] {
        let planted = Planted::new();
        symlink(planted.folder(), planted.at(path)).unwrap();
        planted.fails(path, &["cannot write", path, "a link there leads out of the cache", "HF_HUB_CACHE"]);
        let planted = Planted::new();
        symlink(planted.outside.path().join("new"), planted.at(path)).unwrap();
        planted.fails(path, &["cannot write", path]);
    }
    // The user's own choice: a cache, or a model in it, that lies on another disk.
    let planted = Scene::with("base");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(planted.home.path().join("hub")).unwrap();
    symlink(elsewhere.path(), planted.repository()).unwrap();
    planted.info(ID, &[]).succeeds();
    assert!(elsewhere.path().join("blobs").is_dir());
    let planted = Scene::with("base");
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), planted.home.path().join("hub")).unwrap();
    planted.info(ID, &[]).succeeds();
    assert!(elsewhere.path().join(".locks").is_dir());
}

#[test]
fn a_folder_in_place_of_a_file_is_an_error() {
    let planted = Planted::new();
    std::fs::create_dir(planted.at(&name_of(planted.scene.partial("base", WEIGHTS)))).unwrap();
    planted.fails("a folder", &["cannot write", ".incomplete"]);
    let planted = Planted::new();
    std::fs::create_dir(planted.at(&name_of(planted.scene.blob("base", WEIGHTS)))).unwrap();
    planted.fails("a folder", &["cannot write"]);
}

/// A link that names the right checksum, but elsewhere.
#[test]
fn content_outside_the_cache_is_not_the_hubs() {
    let planted = Planted::new();
    let blob = planted.scene.blob("base", "config.json");
    let other = br#"{"model_type": "gpt2", "n_layer": 1}"#;
    let copy = planted.outside.path().join("folder").join(crate::fake_hub::etag("config.json", other));
    std::fs::write(&copy, other).unwrap();
    symlink(&copy, planted.at(&format!("snapshots/{}/config.json", super::super::COMMIT))).unwrap();
    let ended = bounded(&planted.scene, planted.scene.info(ID, &[]), "another config.json");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let link = std::fs::read_link(planted.scene.snapshot().join("config.json")).unwrap();
    assert_eq!(link.file_name(), blob.file_name());
}
