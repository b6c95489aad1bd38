//! Arithmetic over models and their outputs that needs no forward pass of its own.

pub mod parameters;
