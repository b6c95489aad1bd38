//! Who may read what; secrets; proxies; and no connection at all.

use super::*;

#[test]
fn the_token_is_sent_only_to_the_hub() {
    let scene = Scene::with("base");
    scene.hub.restrict(ID, Access::Private);
    let as_variable: fn(Run, &Path) -> Run = |run, _| run.env("HF_TOKEN", format!("{TOKEN}\n"));
    let as_file: fn(Run, &Path) -> Run = |run, home| {
        std::fs::write(home.join("elsewhere"), TOKEN).unwrap();
        run.env("HF_TOKEN_PATH", home.join("elsewhere"))
    };
    let as_login: fn(Run, &Path) -> Run = |run, home| {
        std::fs::write(home.join("token"), format!("{TOKEN}\n")).unwrap();
        run
    };
    for pass in [as_variable, as_file, as_login] {
        let done = pass(scene.info(ID, &[]), scene.home.path()).succeeds();
        assert!(!(done.stderr() + &done.stdout()).contains(TOKEN));
        let requests = scene.hub.take_requests();
        assert!(requests.iter().any(|request| request.to_cdn), "the weights come from the CDN");
        for request in requests {
            let token = request.headers.get("authorization");
            let right = if request.to_cdn { None } else { Some(format!("Bearer {TOKEN}")) };
            assert_eq!(token, right.as_ref(), "{request:?}");
        }
        std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    }
    scene.info(ID, &[]).env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1").fails(1, &["401", "HF_TOKEN"]);
}

#[test]
fn private_gated_and_missing_models_are_distinguished_with_advice() {
    let scene = Scene::with("base");
    let done = scene.info("someone/nothing", &[]).fails(1, &["someone/nothing", "401", "name", "HF_TOKEN"]);
    let next = "; to try the built-in model: gpt2 info -m demo";
    assert!(done.stderr().lines().any(|line| line.contains(next)), "{}", done.stderr());
    scene.info("someone/nothing", &[]).env("HF_TOKEN", TOKEN).fails(1, &["someone/nothing", "not found", "name"]);
    scene.hub.restrict(ID, Access::Gated);
    scene.info(ID, &[]).fails(1, &[ID, "terms", &format!("{}/{ID}", scene.hub.url()), "HF_TOKEN"]);
    let done = scene.info(ID, &[]).env("HF_TOKEN", "hf_wrong").fails(1, &[ID, "make sure that the token"]);
    assert!(!done.stderr().contains("hf_wrong"));
    scene.hub.fail(1, "GET", "/api/models", Fault::Status(403));
    scene.info(ID, &[]).fails(1, &[ID, "403", "HF_TOKEN"]);
    scene.info(ID, &[]).env("HF_TOKEN", TOKEN).succeeds();
}

/// As in a container that has nothing but the program.
#[cfg(target_os = "linux")]
#[test]
fn a_system_without_certificates_learns_what_it_lacks() {
    let scene = Scene::with("base");
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.pem");
    std::fs::write(&none, "").unwrap();
    let run = scene.info(ID, &[]).env("SSL_CERT_FILE", &none).env("SSL_CERT_DIR", folder.path());
    run.fails(1, &["no certificates", "ca-certificates", "SSL_CERT_FILE", "the built-in model: gpt2 info -m demo"]);
}

/// Someone behind a proxy learns that it is the proxy that fails, and nobody learns its password.
#[test]
fn a_proxy_that_refuses_is_named() {
    use std::io::{Read, Write};
    let scene = Scene::with("base");
    let through = |address: &str, variable: &str, endpoint: &str| {
        scene.info(ID, &[]).env("NO_PROXY", "").env("HF_ENDPOINT", endpoint).env(variable, address)
    };
    let done = through("http://ann:secret@127.0.0.1:9", "HTTPS_PROXY", "https://hub.invalid")
        .fails(1, &["cannot reach the hub", "through the proxy http://127.0.0.1:9 (HTTPS_PROXY)"]);
    assert!(!done.stderr().contains("secret"), "{}", done.stderr());
    // The names of Windows's variables have no case.
    let named = if cfg!(windows) { "(HTTP_PROXY)" } else { "(http_proxy)" };
    through("http://127.0.0.1:9", "http_proxy", "http://hub.invalid").fails(1, &["through the proxy", named]);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let words = &["the proxy", &address, "407"][..];
    through(&address, "HTTP_PROXY", "http://hub.invalid").fails(1, words);
    through(&address, "HTTPS_PROXY", "https://hub.invalid").fails(1, &words[..2]);
}

/// Otherwise the request would go around it.
#[test]
fn a_proxy_whose_address_cannot_be_read_is_an_error() {
    let scene = Scene::with("base");
    let run = |variable: &str, value: &str, endpoint: &str| {
        scene.info(ID, &[]).env("NO_PROXY", "").env("HF_ENDPOINT", endpoint).env(variable, value)
    };
    for value in
        [":::", "http://", "http://:8080", "proxy.invalid:abc", "ftp://proxy.invalid", "http://u:secret@p:99999"]
    {
        for (variable, endpoint) in [
            ("HTTPS_PROXY", "https://hub.invalid"),
            ("http_proxy", "http://hub.invalid"),
            ("ALL_PROXY", "https://hub.invalid"),
        ] {
            let shown = if cfg!(windows) { variable.to_uppercase() } else { variable.to_owned() };
            let start = format!("error: {shown} cannot be the address of a proxy: ");
            let done = run(variable, value, endpoint).fails(1, &[&start]);
            assert!(done.stderr().lines().count() == 1 && !done.stderr().contains("secret"), "{}", done.stderr());
        }
    }
    for value in ["127.0.0.1:9", "http://127.0.0.1:9/", "[::1]:9", "socks5://u:secret@127.0.0.1:9"] {
        let done = run("HTTPS_PROXY", value, "https://hub.invalid").fails(1, &["through the proxy", "(HTTPS_PROXY)"]);
        assert!(!done.stderr().contains("secret"), "{}", done.stderr());
    }
    // It does not count for this hub.
    scene.info(ID, &[]).env("NO_PROXY", "127.0.0.1,localhost").env("HTTP_PROXY", ":::").succeeds();
    scene.info(ID, &[]).env("NO_PROXY", "").env("HTTPS_PROXY", ":::").succeeds();
}

#[test]
fn offline_opens_no_connection() {
    let scene = Scene::with("base");
    let in_vain = &["offline", ID, "cache", "gpt2 info -m demo"];
    scene.info(ID, &["--offline"]).fails(1, in_vain);
    for value in ["1", "ON", "yes", "True"] {
        scene.info(ID, &[]).env("HF_HUB_OFFLINE", value).fails(1, in_vain);
        scene.info(ID, &[]).env("TRANSFORMERS_OFFLINE", value).fails(1, in_vain);
    }
    assert_eq!(scene.hub.take_requests().len(), 0);
    // As in huggingface_hub, the first that is set counts.
    scene.info(ID, &[]).env("HF_HUB_OFFLINE", "0").env("TRANSFORMERS_OFFLINE", "1").succeeds();
}

/// The fake hub only records connections to itself; system calls show all connections.
#[test]
#[cfg(target_os = "linux")]
fn offline_opens_no_socket() {
    let strace = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    let Some(strace) = requires("strace", strace.ok()) else { return };
    assert!(strace.success());
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();
    for (arguments, connects) in [(&["--offline"][..], false), (&["--revision", "v0"], true)] {
        let log = scene.home.path().join("strace.log");
        let traced = scene.info(ID, arguments).into_command();
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=socket,connect,sendto", "-o"]).arg(&log);
        command.arg(traced.get_program()).args(traced.get_args());
        for (name, value) in traced.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log.contains("socket("), connects, "{log}");
    }
}
