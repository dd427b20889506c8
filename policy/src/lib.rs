//! What may cross, and what may be done: the border's decisions.

pub mod decide;
