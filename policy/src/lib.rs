//! What may cross, and what may be done: the border's decisions.

pub mod command;
pub mod decide;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
