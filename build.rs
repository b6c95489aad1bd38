//! Finds the commit, and compiles the kernels of `src/model/cuda/kernels`: with nvcc for `--features cuda`, with the C++ compiler for
//! `--features emulator`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    if let Some(commit) = commit() {
        println!("cargo:rustc-env=GPT2_COMMIT={commit}");
    }
    let folder = PathBuf::from("src/model/cuda/kernels");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", folder.display());
    println!("cargo:rustc-check-cfg=cfg(cuda_kernels)");
    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    if feature("CUDA") {
        compile_for_gpus(&folder);
    } else if feature("EMULATOR") {
        compile_for_the_host(&folder);
    } else {
        return;
    }
    println!("cargo:rustc-cfg=cuda_kernels");
}

/// The commit that is checked out, if this is a checkout of this package alone and git can tell. Packages and copies have
/// none, so that their builds depend on nothing but the sources.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let root = std::fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    if root != std::fs::canonicalize(env::var_os("CARGO_MANIFEST_DIR")?).ok()? {
        return None;
    }
    // The log changes with every commit and every checkout; where there is none, the branch's name is all that is watched.
    for name in ["logs/HEAD", "HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if std::path::Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// Compiles machine code for GPU generations that need their own, and PTX, which the driver compiles, for later ones.
fn compile_for_gpus(folder: &std::path::Path) {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let in_toolkit = |variable| env::var_os(variable).map(|home| PathBuf::from(home).join("bin/nvcc"));
    let named = env::var_os("NVCC").map(PathBuf::from);
    let found = named.into_iter().chain(["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(in_toolkit));
    let nvcc = found.into_iter().find(|path| path.is_file()).unwrap_or_else(|| "nvcc".into());
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("kernels.fatbin");
    let mut command = Command::new(&nvcc);
    command.args(["-fatbin", "-O3", "-std=c++17", "-fmad=false"]);
    command.args(["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=[sm_90,compute_90]"]);
    command.arg("-o").arg(&output).arg(folder.join("kernels.cu"));
    match command.status() {
        Ok(status) if status.success() => (),
        Ok(status) => panic!("{} failed: {status}", nvcc.display()),
        Err(error) => panic!("{} cannot be run: {error}; install CUDA's toolkit, or set CUDA_HOME", nvcc.display()),
    }
}

#[cfg(feature = "emulator")]
fn compile_for_the_host(folder: &std::path::Path) {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .define("EMULATED", None)
        // Kernels read numbers as vectors, and fuse multiply and add only where they say so.
        .flag("-fno-strict-aliasing")
        .flag("-ffp-contract=off")
        .flag("-Wno-unknown-pragmas")
        .flag("-xc++")
        .file(folder.join("kernels.cu"))
        .compile("gpt2_kernels");
}

#[cfg(not(feature = "emulator"))]
fn compile_for_the_host(_folder: &std::path::Path) {
    unreachable!("without the feature there is nothing to compile")
}
