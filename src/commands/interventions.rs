//! What the flags change inside the network: read before a model is looked for, and made once it is loaded.

use anyhow::{Context, Result};
use gpt2::Error;
use gpt2::analysis::interventions::{Ablation, Interventions, Part, Steering, difference};
use gpt2::checkpoint::SteeringVectors;
use gpt2::error::tokens_text;
use gpt2::model::Gpt2;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::load::Loaded;
use crate::cli::{InterventionArgs, SteerAgainst, SteerFile, TextArgs};
use crate::output::say;
use crate::output::tokens::{cut, quoted};

/// Columns of a text in the line that says what was changed.
const WIDEST: usize = 40;

/// What the flags ask for. Only what texts say of the residual stream is still to be found out.
#[derive(Default)]
pub struct Changes {
    ablations: Vec<Ablation>,
    /// The vectors from files.
    steering: Vec<Steering>,
    /// Two texts with the block and the scale of their difference.
    texts: Vec<(String, SteerAgainst)>,
    /// What was changed, for people.
    said: Vec<String>,
    /// The same for records.
    parameters: Map<String, Value>,
}

/// What was changed in a loaded model.
#[derive(Default)]
pub struct Changed {
    /// Changes that depend on the text; others are made in the model itself.
    pub by_text: Option<Interventions>,
    /// What records say of the changes.
    pub parameters: Map<String, Value>,
}

impl Changes {
    /// Reads what the flags name.
    ///
    /// # Errors
    /// A usage error if they do not fit together, or for a file that holds no vector.
    pub fn read(args: &InterventionArgs) -> Result<Self> {
        let mut changes = Self::default();
        let ablations = Interventions::new(&args.ablate, vec![])?;
        changes.ablations = ablations.ablations().to_vec();
        changes.said.extend(changes.ablations.iter().map(ablated));
        let mut steer = vec![];
        for file in &args.steer {
            steer.push(changes.add_file(file)?);
        }
        if args.steer_from.len() != args.steer_against.len() {
            let (one, other) = (args.steer_from.len(), args.steer_against.len());
            let message = format!("{one} `steer_from` and {other} `steer_against`: each needs one of the other");
            return Err(Error::Usage(message).into());
        }
        for (from, against) in args.steer_from.iter().zip(&args.steer_against) {
            for (name, text) in [("steer_from", from), ("steer_against", &against.text)] {
                if text.is_empty() {
                    return Err(Error::parameter(name, "is empty: give a text of at least one token").into());
                }
            }
            let SteerAgainst { text, layer, scale } = against;
            let shown = |text: &str| quoted(cut(text, WIDEST).as_bytes());
            let name = format!("({} - {})", shown(from), shown(text));
            changes.said.push(format!("{scale:+} x {name} after block {layer}"));
            steer.push(json!({"from": from, "against": text, "layer": layer, "scale": scale}));
            changes.texts.push((from.clone(), against.clone()));
        }
        if !changes.ablations.is_empty() {
            let ablate: Vec<String> = changes.ablations.iter().map(ToString::to_string).collect();
            changes.parameters.insert("ablate".into(), ablate.into());
        }
        if !steer.is_empty() {
            changes.parameters.insert("steer".into(), steer.into());
        }
        Ok(changes)
    }

    /// Adds the vectors of a file; returns what records say of them.
    fn add_file(&mut self, SteerFile { file, layer, scale }: &SteerFile) -> Result<Value> {
        let name = file.display().to_string();
        let fault = |message: String| Error::parameter("steer", message);
        let vectors = SteeringVectors::read(file).map_err(|error| {
            let fault = anyhow::Error::from(error);
            Error::parameter("steer", fault.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))
        });
        let vectors = match (vectors?, layer) {
            (SteeringVectors::One(vector), Some(layer)) => vec![(*layer, vector)],
            (SteeringVectors::One(_), None) => {
                return Err(fault(format!("{name}: which block? Give it after the name, as in {name}@3")).into());
            }
            (SteeringVectors::ByBlock(vectors), None) => vectors.into_iter().collect(),
            (SteeringVectors::ByBlock(mut vectors), Some(layer)) => match vectors.remove(layer) {
                Some(vector) => vec![(*layer, vector)],
                None => return Err(fault(format!("{name}: it has no control vector for block {layer}")).into()),
            },
        };
        let blocks: Vec<usize> = vectors.iter().map(|(block, _)| *block).collect();
        self.said.push(format!("{scale:+} x {name} after {}", after(&blocks)));
        let mut hash = Sha256::new();
        for (block, vector) in vectors {
            hash.update(block.to_le_bytes());
            vector.iter().for_each(|x| hash.update(x.to_le_bytes()));
            self.steering.push(Steering::new(name.clone(), block, &vector, *scale)?);
        }
        let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({"file": name, "layer": layer, "scale": scale, "hash": hash}))
    }

    /// Whether there are any.
    pub fn are_any(&self) -> bool {
        !self.said.is_empty()
    }
}

impl Loaded {
    /// The same model with changes, which are said first if the result `is_said`: that is, text for people.
    ///
    /// # Errors
    /// A usage error if they do not fit the model.
    pub fn with_changes(mut self, changes: Changes, text: &TextArgs, is_said: bool) -> Result<Self> {
        if !changes.are_any() {
            return Ok(self);
        }
        let Changes { ablations, mut steering, texts, said, parameters } = changes;
        // What is wrong with the rest need not wait for texts to run.
        Interventions::new(&ablations, steering.clone())?.check(self.pipeline.model.config())?;
        for (from, SteerAgainst { text: against, layer, scale }) in &texts {
            let from = self.steering_ids("steer_from", from, text)?;
            let against = self.steering_ids("steer_against", against, text)?;
            let vector = difference(&self.pipeline.model, *layer, &from, &against)?;
            steering.push(Steering::new("the texts".into(), *layer, &vector, *scale)?);
        }
        let interventions = Interventions::new(&ablations, steering)?;
        if interventions.depend_on_prompt() {
            self.changed.by_text = Some(interventions);
        } else {
            self.pipeline.model = interventions.apply(&self.pipeline.model, &[])?;
        }
        self.settings.parameters.extend(parameters.clone());
        self.changed.parameters = parameters;
        if is_said {
            say(format_args!("changed: {}", said.join("; ")));
        }
        Ok(self)
    }

    /// The model for a text that begins with these ids: with the means over them, if any are asked for.
    pub fn model_for(&self, prompt: &[u32]) -> Result<Gpt2> {
        match &self.changed.by_text {
            Some(interventions) => Ok(interventions.apply(&self.pipeline.model, prompt)?),
            None => Ok(self.pipeline.model.clone()),
        }
    }

    /// Whether each text has a model of its own, so that it must run alone.
    pub fn is_changed_by_text(&self) -> bool {
        self.changed.by_text.is_some()
    }

    /// The ids of a text to steer by, which begin as those of a prompt.
    fn steering_ids(&self, name: &'static str, text: &str, args: &TextArgs) -> Result<Vec<u32>> {
        let ids = self.pipeline.prompt_ids(text, !args.no_special);
        let mut ids =
            ids.map_err(|error| Error::parameter(name, format!("needs a tokenizer that has the text: {error}")))?;
        let has_start = self.pipeline.tokenizer.as_ref().is_some_and(|tokenizer| !tokenizer.before_text().is_empty());
        if args.bos && !has_start {
            ids.insert(0, self.start_token().context("--bos: the model has no start token")?);
        }
        let (tokens, context) = (ids.len(), self.pipeline.model.config().n_positions);
        match tokens {
            0 => Err(Error::parameter(name, format!("{}: the text has no token", quoted(text.as_bytes()))).into()),
            _ if tokens > context => {
                let tokens = tokens_text(tokens);
                Err(Error::parameter(name, format!("has {tokens}, more than the context of {context}")).into())
            }
            _ => Ok(ids),
        }
    }
}

/// A part that was taken out, in words.
fn ablated(Ablation { layer, part, by }: &Ablation) -> String {
    match part {
        Part::Head(head) => format!("head {layer}.{head} ablated ({by})"),
        Part::Attention => format!("attention of layer {layer} ablated ({by})"),
        Part::Mlp => format!("MLP of layer {layer} ablated ({by})"),
    }
}

/// Blocks in words: `block 3`, `blocks 1 to 11`, `blocks 1, 4`.
fn after(blocks: &[usize]) -> String {
    match blocks {
        [block] => format!("block {block}"),
        [first, .., last] if last - first + 1 == blocks.len() => format!("blocks {first} to {last}"),
        _ => format!("blocks {}", blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}
