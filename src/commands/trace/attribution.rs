//! `gpt2 trace --attribute`: what made a logit.

use anyhow::Result;
use gpt2::analysis::attribution::{self, Tokens, attribute, attribute_each};
use gpt2::error::tokens_text;
use gpt2::memory;

use crate::cli::AttributionArgs;
use crate::commands::load::Loaded;
use crate::commands::token::{position, token_id};
use crate::commands::{check_context, require_memory};
use crate::output::attribution::AttributionRecord;

/// What is asked about each text.
pub struct Question {
    tokens: Tokens,
    /// After which position; the last if `None`.
    position: Option<i64>,
}

impl Question {
    /// What the flags ask, if they do.
    pub fn of(args: &AttributionArgs, loaded: &Loaded) -> Result<Option<Self>> {
        let Some(target) = &args.attribute else { return Ok(None) };
        let target = token_id(loaded, "--attribute", target)?;
        let against = args.against.as_ref().map(|text| token_id(loaded, "--against", text)).transpose()?;
        Ok(Some(Self { tokens: Tokens { target, against }, position: args.position }))
    }

    /// The answer for each of the texts.
    pub fn answer(&self, loaded: &Loaded, texts: &[&[u32]]) -> Result<Vec<AttributionRecord>> {
        texts.iter().try_for_each(|ids| check_context(loaded, ids.len()))?;
        let at = |ids: &[u32]| self.position.map_or(Ok(ids.len() - 1), |asked| position(asked, ids.len()));
        let asked = texts.iter().map(|ids| Ok((*ids, at(ids)?))).collect::<Result<Vec<_>>>()?;
        let bytes = |tokens| attribution::bytes(&loaded.model, tokens);
        match asked.as_slice() {
            [(_, at)] => {
                let what = format!("attribution over {}", tokens_text(at + 1));
                require_memory(&what, at + 1, bytes, |tokens| format!("a text of {}", tokens_text(tokens)))?;
            }
            _ => memory::require_bytes("attribution", asked.iter().map(|(_, at)| bytes(at + 1)).sum())?,
        }
        let found = match loaded.is_changed_by_text() {
            false => attribute(&loaded.model, &asked, self.tokens)?,
            true => {
                let one = |asked: &(&[u32], usize)| Ok(attribute(&loaded.model_for(asked.0)?, &[*asked], self.tokens)?);
                asked.iter().map(one).collect::<Result<Vec<_>>>()?.concat()
            }
        };
        let named = |id: u32| (id, loaded.token_text(id));
        let names = || [Some(self.tokens.target), self.tokens.against].map(|id| id.map(named));
        Ok(found.iter().map(|found| AttributionRecord::new(found, names())).collect())
    }
}

/// What made each token of a text, for its page.
pub fn of_each(loaded: &Loaded, ids: &[u32]) -> Result<Vec<AttributionRecord>> {
    let bytes = |tokens| attribution::bytes_of_each(&loaded.model, tokens);
    let what = format!("attribution over {}", tokens_text(ids.len()));
    require_memory(&what, ids.len(), bytes, |tokens| format!("a text of {}", tokens_text(tokens)))?;
    let found = attribute_each(&loaded.model_for(ids)?, ids)?;
    let record =
        |(target, found): &(u32, _)| AttributionRecord::new(found, [Some((*target, loaded.token_text(*target))), None]);
    Ok(found.iter().map(record).collect())
}
