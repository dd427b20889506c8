//! Bounds of what is read from outside.

/// Of one set of policies, in bytes of all texts together. Hundreds of policies are far below; reading them takes time
/// and memory in proportion.
pub const MOST_TEXT: usize = 1 << 20;

/// Files, or texts handed in, of one set.
pub const MOST_TEXTS: usize = 256;

/// Policies of one set: each costs every decision it might apply to about a third of a microsecond.
pub const MOST_RULES: usize = 4096;

/// Of the id of a policy, in bytes: ids stand in every record of a decision.
pub const LONGEST_ID: usize = 128;

/// Of the name of a text, in bytes: file names are no longer.
pub const LONGEST_NAME: usize = 255;

/// Of a signed bundle as JSON, in bytes: the texts, where every character takes six, and the rest.
pub const LARGEST_BUNDLE: usize = 8 << 20;

/// Signatures of one bundle: more people than that do not sign.
pub const MOST_SIGNATURES: usize = 32;

/// Of one recorded question as JSON, in bytes: a user's roles and a server's federations are what makes it long.
pub const LARGEST_QUESTION: usize = 64 << 10;

/// Names in one set of a question (roles, federations, findings).
pub const MOST_NAMES: usize = 256;

/// Recorded questions that are compared at one time; a longer file is refused, to be cut.
pub const MOST_QUESTIONS: usize = 1_000_000;

/// Of a file of cases, in bytes.
pub const LARGEST_CASES: usize = 4 << 20;

/// Brackets within brackets in a policy. People nest a handful.
pub const MOST_NESTED: usize = 64;

/// Operators and dots of one policy, each of which may be one more level: some hundred conditions.
pub const MOST_LINKS: usize = 512;

/// Of the stack on which policies are read and explained, in bytes: what the two bounds above take without optimization,
/// and half of it again.
pub const STACK: usize = 64 << 20;
