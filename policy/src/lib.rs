//! Who may see what: security labels, clearances, and the policies both are written in.
//!
//! A [`Label`] says how an object is to be protected, a [`Clearance`] what a holder may see. Both use the names of a
//! security policy, a [`spif::Spif`], of which [`Policies`] holds all that are loaded. Names are turned into numbers
//! once, by [`Policies::resolve`] and [`Policies::resolve_clearance`]; deciding is then comparing bit sets ([`lattice`]).
//!
//! ```
//! use postern_policy::{Clearance, Policies};
//! let policies = Policies::presets()?;
//! let label = policies.parse_label("NATO SECRET//ATOMAL//REL TO USA, GBR")?;
//! let officer = policies.parse_clearance("NATO SECRET//ATOMAL//REL TO GBR")?;
//! assert!(policies.dominates(&officer, Some(&label))?.holds());
//! assert_eq!(
//!     policies.dominates(&Clearance::none(), Some(&label))?.to_string(),
//!     "no clearance under NATO"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bits;
pub mod clearance;
pub mod command;
mod compiled;
pub mod decide;
mod equivalence;
mod explain;
pub mod fuzzing;
pub mod label;
pub mod lattice;
#[cfg(test)]
mod laws;
pub mod limits;
pub mod marking;
mod names;
pub mod policies;
mod rules;
pub mod spif;
mod text;

pub use clearance::Clearance;
pub use label::{Label, TagType};
pub use lattice::{Dominance, Resolved, ResolvedClearance};
pub use marking::Marking;
pub use policies::{LabelError, Policies};
