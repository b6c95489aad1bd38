//! The built binary: stdout, stderr, exit code, files.

#![allow(clippy::disallowed_methods, reason = "tests compare with the platform's mathematics")]
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports, reason = "some tests are for Linux alone"))]

mod assisted;
mod batch;
mod bench;
mod browser;
mod checkpoint;
mod completions;
mod compress;
#[cfg(feature = "constraints")]
mod constraints;
mod convert;
mod decoding;
mod early;
mod embed;
mod engines;
#[cfg(feature = "hub")]
mod fake_hub;
mod first_steps;
mod forms;
mod generate;
mod generation_config;
mod habits;
mod harness;
mod html;
#[cfg(feature = "hub")]
mod hub;
mod info;
mod inputs;
mod inside;
mod interventions;
mod json_page;
#[cfg(target_os = "linux")]
mod links;
mod man;
#[cfg(target_os = "linux")]
mod memory;
mod newcomer;
mod odd_decoding;
#[cfg(all(unix, feature = "constraints", feature = "hub", feature = "serve"))]
mod pages;
mod patch;
mod penalties;
mod pictures;
#[cfg(feature = "constraints")]
mod refused_constraints;
mod rows;
mod saved;
mod score;
mod score_more;
#[cfg(feature = "serve")]
mod serve;
mod settings;
#[cfg(unix)]
mod signals;
mod streams;
mod terminal;
mod texts;
mod tokenize;
mod tokenizer_files;
mod tokenizer_limits;
mod topk;
mod trace;
mod words;
