//! Which views of a pass are shown, and of which layers and heads.

use std::ops::Range;

use anyhow::Result;
use gpt2::Error;

use crate::cli::TraceArgs;
use crate::output::svg;
use crate::output::trace::TraceRecord;

/// Which views to show.
#[derive(Debug, Clone, Copy)]
pub struct Views {
    pub hidden: bool,
    pub attention: bool,
    pub lens: bool,
    pub attribution: bool,
    /// Whether the flags name them, so that they are no default.
    pub are_chosen: bool,
    /// Whether the lens is about the last position only.
    pub is_overview: bool,
}

impl Views {
    /// Those of a page.
    pub fn of_page(self) -> Self {
        Self { hidden: true, attention: true, lens: true, are_chosen: true, is_overview: false, ..self }
    }

    /// What a picture of the one view shows, with this many heads.
    pub fn picture(self, heads: usize) -> String {
        match self {
            Self { attention: true, .. } if heads == 1 => "a picture of the attention of one head".to_owned(),
            Self { attention: true, .. } => format!("a picture of the attention of {heads} heads"),
            Self { lens: true, .. } => "a picture of the logit lens".to_owned(),
            Self { attribution: true, .. } => "a picture of what made the logit".to_owned(),
            _ => "a picture of the hidden states".to_owned(),
        }
    }

    pub fn of(args: &TraceArgs) -> Result<Self> {
        let attention = args.attention || ((args.layer.is_some() || args.head.is_some()) && args.html.is_none());
        let attribution = args.attribution.attribute.is_some();
        let are_chosen = args.hidden || attention || args.lens || attribution || args.repeat.is_some();
        if !are_chosen && args.texts.is_for_people(args.format) && args.svg.is_none() {
            let is_shown = args.save.is_none() && args.html.is_none();
            let lens = is_shown;
            return Ok(Self { hidden: false, attention: is_shown, lens, attribution, are_chosen, is_overview: true });
        }
        let hidden = args.hidden || !(attention || args.lens || attribution || args.repeat.is_some());
        let views = [hidden, attention, args.lens, attribution];
        if args.svg.is_some() && views.into_iter().filter(|view| *view).count() > 1 {
            let message = "--svg draws one view: choose one of --hidden, --attention, --lens and --attribute";
            return Err(Error::Usage(message.into()).into());
        }
        svg::check_theme(args.svg.as_deref(), args.theme)?;
        Ok(Self { hidden, attention, lens: args.lens, attribution, are_chosen, is_overview: false })
    }

    /// Drops the other views of a record.
    pub fn keep(self, record: &mut TraceRecord) {
        record.hidden = record.hidden.take().filter(|_| self.hidden);
        record.attention = record.attention.take().filter(|_| self.attention);
        record.lens = record.lens.take().filter(|_| self.lens);
    }
}

/// How to ask for fewer heads.
pub fn narrower(args: &TraceArgs) -> &'static str {
    match (args.layer, args.head) {
        (None, None) => "choose a --layer or a --head, or shorten the text",
        (None, Some(_)) => "choose a --layer, or shorten the text",
        (Some(_), None) => "choose a --head, or shorten the text",
        (Some(_), Some(_)) => "shorten the text",
    }
}

/// The layer or head that a flag names, or all.
pub fn selected(chosen: Option<usize>, count: usize, flag: &str) -> Result<Range<usize>> {
    match chosen {
        None => Ok(0..count),
        Some(chosen) if chosen < count => Ok(chosen..chosen + 1),
        Some(chosen) => Err(Error::Usage(format!("{flag} {chosen}: the model has 0 to {}", count - 1)).into()),
    }
}
