//! Which key was meant by one that means nothing.

use gpt2::decode::{PARAMETERS, Parameter, parameter_meaning};

use super::row::Allowed;
use super::values::PROMPT_KEYS;

/// Names that other programs have for parameters: OpenAI's, llama.cpp's, vLLM's, those of other interfaces.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("max_tokens", "max_new_tokens"),
    ("max_completion_tokens", "max_new_tokens"),
    ("n_predict", "max_new_tokens"),
    ("min_tokens", "min_new_tokens"),
    ("best_of", "num_return_sequences"),
    ("stop_sequences", "stop"),
];

/// transformers' names that differ from ours, and that rows may have.
const TRANSFORMERS_NAMES: [&str; 4] = ["do_sample", "stop_strings", "prompt_lookup_num_tokens", "eos_token_id"];

/// The key that was meant by `other`, which means nothing: how that is called, and the key. Of the parameters,
/// only those that are allowed may be meant; `own` are keys of the subcommand's own.
pub fn meant(other: &str, allowed: Allowed, own: &[&'static str]) -> Option<(&'static str, &'static str)> {
    // One of another subcommand.
    if parameter_meaning(other).is_some() {
        return None;
    }
    let is_ours = |ours: &str| Parameter::named(ours).is_some_and(|parameter| allowed.has(parameter));
    let known = OTHER_NAMES.iter().find(|(name, ours)| *name == other && is_ours(ours));
    if let Some((_, ours)) = known {
        return Some(("another name of", ours));
    }
    let ours = PARAMETERS.iter().filter(|parameter| allowed.has(parameter)).map(|parameter| parameter.name);
    let parameters = ours.chain(TRANSFORMERS_NAMES.into_iter().filter(|_| allowed == Allowed::All));
    // Short ones are nearly words of others: `context`, `content`.
    let own = own.iter().copied().filter(|name| name.len() > 7);
    let keys = ["id"].into_iter().chain(PROMPT_KEYS).chain(parameters).chain(own);
    let near = keys.filter(|name| is_nearly(other, name));
    near.min_by_key(|name| strsim::osa_distance(&letters(other), &letters(name))).map(|name| ("nearly", name))
}

/// What counts of a name.
fn letters(name: &str) -> String {
    name.replace(['_', '-', ' '], "").to_lowercase()
}

/// Whether `other` differs from `name` in case, dashes, underscores, an s at its end or, if the name is long, a letter or two.
fn is_nearly(other: &str, name: &str) -> bool {
    let (other_letters, name_letters) = (letters(other), letters(name));
    let mistakes = match name_letters.len() {
        0..=4 => 0,
        5..=7 => 1,
        _ => 2,
    };
    if other_letters.strip_suffix('s') == Some(&name_letters) && name != "id" {
        return true;
    }
    // A name such as `_id` is a name of its own.
    !other.starts_with('_')
        && other_letters.len().abs_diff(name_letters.len()) <= mistakes
        && strsim::osa_distance(&other_letters, &name_letters) <= mistakes
}
