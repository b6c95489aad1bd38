//! `adapter_config.json`: the rank and the factor of each layer, and what else a merge depends on.
//!
//! `target_modules`, `exclude_modules`, `layers_to_transform` and `bias` are told by the names in the file already.
//! `fan_in_fan_out` does not count: PEFT sets it by the kind of the layer.

use std::path::{Path, PathBuf};

use regex::RegexBuilder;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::json::{self, shown};

/// The most patterns, and bytes that a compiled one may take: a small file must not take much time or memory.
const MOST_PATTERNS: usize = 2000;
const LARGEST_PATTERN: usize = 1 << 20;

/// The largest rank, far beyond any that trains.
const LARGEST_RANK: u64 = 1 << 20;

/// Settings of adapters that are more than a sum of weights and products.
const UNSUPPORTED: [&str; 9] = [
    "alora_invocation_tokens",
    "arrow_config",
    "enable_lora",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
];

/// How the names begin of initialisations that change the weights of the base.
const CHANGING_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "lora_ga", "loftq"];

/// The settings of an adapter.
#[derive(Debug)]
pub(super) struct Settings {
    path: PathBuf,
    /// The name or path of the base.
    pub base: Option<String>,
    rank: usize,
    alpha: f64,
    ranks: Vec<(String, usize)>,
    alphas: Vec<(String, f64)>,
    /// Whether the factor is alpha over the root of the rank.
    rslora: bool,
    pub dora: bool,
    /// Whether tied weights share one change.
    pub one_change: bool,
    saved: Vec<String>,
    /// Lists of token ids, and the module each is for; no module stands for the token embedding.
    tokens: Vec<(Option<String>, Vec<usize>)>,
}

/// How B A is scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub rank: usize,
    pub factor: f32,
}

/// An object of the file, with errors that name its keys.
struct Fields<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl Settings {
    /// Reads and checks the file. Missing keys have the defaults of PEFT's `LoraConfig`.
    pub fn read(config: &SmallFile) -> Result<Self> {
        let path = config.path();
        let fields = match json::parse(config.bytes()?) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(Error::format(path, "not the settings of a PEFT adapter: no JSON object")),
            Err(fault) => return Err(Error::format(path, format!("not the settings of a PEFT adapter: {fault}"))),
        };
        let fields = Fields { path, fields };
        fields.check_kind()?;
        Ok(Self {
            path: path.into(),
            base: fields.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            rank: fields.number("r", 8, RANK)?,
            alpha: fields.number("lora_alpha", 8.0, ALPHA)?,
            ranks: fields.patterns("rank_pattern", RANK)?,
            alphas: fields.patterns("alpha_pattern", ALPHA)?,
            rslora: fields.flag("use_rslora")?,
            dora: fields.flag("use_dora")?,
            one_change: fields.flag("ensure_weight_tying")?,
            saved: fields.names("modules_to_save")?,
            tokens: fields.tokens()?,
        })
    }

    /// Whether a module was copied as a whole for training. PEFT takes every module whose name ends with a given one.
    pub fn is_saved(&self, module: &str) -> bool {
        self.saved.iter().any(|name| module.ends_with(name.as_str()))
    }

    /// The tokens whose rows of `module` the adapter holds.
    pub fn token_indices(&self, module: &str) -> Option<Vec<usize>> {
        let is_for = |name: &Option<String>| module.ends_with(name.as_deref().unwrap_or("wte"));
        self.tokens.iter().find(|(name, _)| is_for(name)).map(|(_, tokens)| tokens.clone())
    }

    /// The scales of these modules.
    ///
    /// # Errors
    /// [`Error::Format`] if a pattern cannot be read.
    pub fn scales(&self, modules: &[String]) -> Result<Vec<Scale>> {
        let ranks = self.matching("rank_pattern", &self.ranks, self.rank, modules)?;
        let alphas = self.matching("alpha_pattern", &self.alphas, self.alpha, modules)?;
        let scale = |(rank, alpha): (usize, f64)| {
            let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
            Scale { rank, factor: (alpha / divisor) as f32 }
        };
        Ok(ranks.into_iter().zip(alphas).map(scale).collect())
    }

    /// The value of the first pattern that matches each module. A pattern is a regular expression for the end of the
    /// name, from after a dot on (PEFT's `get_pattern_key`); the time that the crate `regex` takes is linear in the name.
    fn matching<T: Copy>(&self, key: &str, patterns: &[(String, T)], default: T, modules: &[String]) -> Result<Vec<T>> {
        let mut values = vec![None; modules.len()];
        for (pattern, value) in patterns {
            let regex = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
                .size_limit(LARGEST_PATTERN)
                .dfa_size_limit(LARGEST_PATTERN)
                .build()
                .map_err(|_| {
                    let pattern = Value::from(pattern.as_str());
                    Error::format(
                        &self.path,
                        format!("`{key}` has the pattern {}, which cannot be used", shown(&pattern)),
                    )
                })?;
            for (module, slot) in modules.iter().zip(&mut values) {
                if slot.is_none() && regex.is_match(module) {
                    *slot = Some(*value);
                }
            }
        }
        Ok(values.into_iter().map(|value| value.unwrap_or(default)).collect())
    }
}

/// A kind of number: how it is read, and what it must be.
struct Number<T>(fn(&Value) -> Option<T>, &'static str);

const RANK: Number<usize> = Number(
    |value| value.as_u64().filter(|rank| (1..=LARGEST_RANK).contains(rank)).map(|rank| rank as usize),
    "a whole number from 1 to 1048576",
);

const ALPHA: Number<f64> = Number(|value| value.as_f64().filter(|alpha| alpha.is_finite()), "a finite number");

impl Fields<'_> {
    fn error(&self, message: impl AsRef<str>) -> Error {
        Error::format(self.path, message)
    }

    /// The value of a key, unless it is null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// Refuses what is no plain LoRA, rsLoRA or DoRA.
    fn check_kind(&self) -> Result<()> {
        match self.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(kind) => {
                return Err(
                    self.error(format!("`peft_type` is {}; of PEFT's adapters, LORA is supported", shown(kind)))
                );
            }
            None => return Err(self.error("it has no `peft_type`, so it is not the settings of a PEFT adapter")),
        }
        let is_set = |value: &Value| match value {
            Value::Bool(set) => *set,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        if let Some(key) = UNSUPPORTED.iter().find(|key| self.get(key).is_some_and(is_set)) {
            return Err(self.error(format!("`{key}` is set; of LoRA's variants, rsLoRA and DoRA are supported")));
        }
        let init = self.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if CHANGING_THE_BASE.iter().any(|name| init.to_ascii_lowercase().starts_with(name)) {
            return Err(self.error(format!(
                "`init_lora_weights` is {init:?}, which changed the weights of the base before training; save the adapter \
                 with PEFT's `path_initial_model_for_weight_conversion`"
            )));
        }
        Ok(())
    }

    fn number<T>(&self, key: &str, default: T, kind: Number<T>) -> Result<T> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                kind.0(value).ok_or_else(|| self.error(format!("`{key}` is {}; it must be {}", shown(value), kind.1)))
            }
        }
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.error(format!("`{key}` is {}; it must be true or false", shown(value)))),
        }
    }

    fn patterns<T>(&self, key: &str, kind: Number<T>) -> Result<Vec<(String, T)>> {
        match self.get(key) {
            None => Ok(vec![]),
            Some(Value::Object(patterns)) if patterns.len() <= MOST_PATTERNS => {
                let read = |(pattern, value): (&String, &Value)| match kind.0(value) {
                    Some(number) => Ok((pattern.clone(), number)),
                    None => {
                        let of = shown(&Value::from(pattern.as_str()));
                        Err(self.error(format!("`{key}` has {} for {of}; it must be {}", shown(value), kind.1)))
                    }
                };
                patterns.iter().map(read).collect()
            }
            Some(_) => Err(self.error(format!("`{key}` must be an object with at most {MOST_PATTERNS} patterns"))),
        }
    }

    fn names(&self, key: &str) -> Result<Vec<String>> {
        let names = match self.get(key) {
            None => Some(vec![]),
            Some(value) => value.as_array().and_then(|names| {
                names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            }),
        };
        names.ok_or_else(|| self.error(format!("`{key}` must be a list of names")))
    }

    /// `trainable_token_indices`: a list, or an object of lists.
    fn tokens(&self) -> Result<Vec<(Option<String>, Vec<usize>)>> {
        let key = "trainable_token_indices";
        let ids = |value: &Value| -> Option<Vec<usize>> {
            value.as_array()?.iter().map(|id| usize::try_from(id.as_u64()?).ok()).collect()
        };
        let lists = match self.get(key) {
            None => Some(vec![]),
            Some(Value::Object(lists)) => {
                lists.iter().map(|(name, list)| Some((Some(name.clone()), ids(list)?))).collect()
            }
            Some(list) => ids(list).map(|ids| vec![(None, ids)]),
        };
        lists.ok_or_else(|| self.error(format!("`{key}` must be a list of token ids, or one for each module")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Adapter;
    use super::*;

    fn read(json: &str) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Adapter::CONFIG);
        std::fs::write(&path, json).unwrap();
        Settings::read(&SmallFile::new(path, Adapter::LARGEST_CONFIG))
    }

    fn scale(json: &str, module: &str) -> (usize, f32) {
        let scale = read(json).unwrap().scales(&[module.to_owned()]).unwrap()[0];
        (scale.rank, scale.factor)
    }

    #[test]
    fn rank_and_alpha_give_the_factor() {
        let module = "transformer.h.1.attn.c_attn";
        assert_eq!(scale(r#"{"peft_type": "LORA"}"#, module), (8, 1.0));
        assert_eq!(scale(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "lora_dropout": NaN}"#, module), (4, 1.5));
        let rslora = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6.5, "use_rslora": true}"#;
        assert_eq!(scale(rslora, module), (4, 3.25));
    }

    /// As PEFT's `get_pattern_key`: the first pattern that matches the end of the name, from after a dot on.
    #[test]
    fn patterns_match_as_in_peft() {
        let json = r#"{"peft_type": "LORA", "rank_pattern": {"h.1.attn.c_attn": 2, "c_attn": 3, "^transformer.wte": 4,
            "h\\.[02]\\.mlp.*": 5, "proj": 6, "attn.c_proj|ln_1": 7}, "alpha_pattern": null}"#;
        for (module, rank) in [
            ("transformer.h.1.attn.c_attn", 2),
            ("transformer.h.11.attn.c_attn", 3),
            ("h.1.attn.c_attn", 2),
            ("transformer.wte", 4),
            ("wte", 8),
            ("transformer.h.2.mlp.c_fc", 5),
            ("transformer.h.1.mlp.c_proj", 8),
            ("transformer.h.1.attn.c_proj", 7),
        ] {
            assert_eq!(scale(json, module).0, rank, "{module}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        for (json, expected) in [
            ("[1]", "not the settings of a PEFT adapter: no JSON object"),
            ("{", "not the settings of a PEFT adapter: not JSON: it breaks off"),
            ("{}", "no `peft_type`"),
            (r#"{"peft_type": "IA3"}"#, "`peft_type` is \"IA3\"; of PEFT's adapters, LORA is supported"),
            (r#"{"peft_type": "LORA", "r": 0}"#, "`r` is 0; it must be a whole number from 1 to 1048576"),
            (r#"{"peft_type": "LORA", "r": 1.5}"#, "`r` is 1.5; it must be a whole number"),
            (r#"{"peft_type": "LORA", "r": "2"}"#, "`r` is \"2\"; it must be a whole number"),
            (r#"{"peft_type": "LORA", "r": 1048577}"#, "`r` is 1048577; it must be a whole number from 1 to 1048576"),
            (r#"{"peft_type": "LORA", "lora_alpha": "6"}"#, "`lora_alpha` is \"6\"; it must be a finite number"),
            (r#"{"peft_type": "LORA", "lora_alpha": NaN}"#, "`lora_alpha` is \"NaN\""),
            (r#"{"peft_type": "LORA", "use_dora": 1}"#, "`use_dora` is 1; it must be true or false"),
            (
                r#"{"peft_type": "LORA", "rank_pattern": {"a": -1}}"#,
                "`rank_pattern` has -1 for \"a\"; it must be a whole number",
            ),
            (r#"{"peft_type": "LORA", "rank_pattern": [1]}"#, "`rank_pattern` must be an object"),
            (r#"{"peft_type": "LORA", "modules_to_save": "wte"}"#, "`modules_to_save` must be a list of names"),
            (r#"{"peft_type": "LORA", "trainable_token_indices": [-1]}"#, "`trainable_token_indices` must be a list"),
            (r#"{"peft_type": "LORA", "use_bdlora": {"nblocks": 2}}"#, "`use_bdlora` is set; of LoRA's variants"),
            (r#"{"peft_type": "LORA", "target_parameters": ["w"]}"#, "`target_parameters` is set"),
            (r#"{"peft_type": "LORA", "init_lora_weights": "PiSSA_niter_4"}"#, "changed the weights of the base"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("adapter_config.json: "), "{json}: {error}");
        }
        for harmless in ["target_parameters\": []", "use_qalora\": false", "init_lora_weights\": \"gaussian\""] {
            assert!(read(&format!("{{\"peft_type\": \"LORA\", \"{harmless}}}")).is_ok(), "{harmless}");
        }
    }

    #[test]
    fn patterns_that_are_no_regular_expressions_are_refused_at_once() {
        for pattern in ["(", "(?=x)", "a{999999999}", "((a{200}){200}){200}"] {
            let settings = read(&format!(r#"{{"peft_type": "LORA", "alpha_pattern": {{"{pattern}": 1}}}}"#)).unwrap();
            let error = settings.scales(&["wte".to_owned()]).unwrap_err().to_string();
            assert!(error.contains("`alpha_pattern` has the pattern"), "{error}");
        }
        // A pattern that takes exponential time where one tries all ways to match it.
        let json = r#"{"peft_type": "LORA", "rank_pattern": {"(a*)*(a*)*b": 2}}"#;
        assert_eq!(scale(json, &"a".repeat(200)).0, 8);
    }
}
