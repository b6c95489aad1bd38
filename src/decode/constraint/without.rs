//! In place of the compiler where the feature `constraints` is left out.

use std::convert::Infallible;
use std::sync::Arc;

use super::super::stop::Detokenize;
use super::{Constraint, Source};
use crate::error::{Error, Result};

/// The bytes of a model's tokens.
pub struct Vocabulary;

impl Vocabulary {
    /// That of a model with `vocab_size` tokens.
    ///
    /// # Errors
    /// None.
    pub fn new(_: usize, _: &dyn Detokenize) -> Result<Self> {
        Ok(Self)
    }

    /// Compiles a constraint.
    ///
    /// # Errors
    /// [`Error::Parameter`] always: it takes the feature `constraints`.
    pub fn compile(&self, source: &Source) -> Result<Arc<Constraint>> {
        Err(Error::parameter(source.name(), "is missing from this build (feature `constraints`)"))
    }
}

pub(super) struct Root(Infallible);

impl Root {
    pub fn start(&self) -> Parser {
        match self.0 {}
    }

    pub fn bytes(&self, _: &[u32]) -> usize {
        match self.0 {}
    }
}

pub(super) type Place = ();

#[derive(Clone)]
pub(super) struct Parser(Infallible);

impl Parser {
    pub fn after(self, _: u32, _: &Root) -> Result<Option<Self>, String> {
        match self.0 {}
    }

    pub fn allows(&mut self, _: u32, _: &Root) -> Result<bool, String> {
        match self.0 {}
    }

    pub fn is_complete(&mut self) -> bool {
        match self.0 {}
    }

    pub fn place(&mut self, _: &Root) -> Option<Place> {
        match self.0 {}
    }

    pub fn mask(&mut self) -> Result<Vec<u32>, String> {
        match self.0 {}
    }
}
