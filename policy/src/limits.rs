//! The bounds on what is read from outside. A label stands in an event, of at most 65,536 bytes, beside much else; a
//! policy file is written by an administrator, but may come from anywhere.

/// Bytes of a name in a label, a clearance or a policy file: what the XML SPIF schema allows, in characters.
pub const NAME_BYTES: usize = 256;
/// Bytes of a label's marking text: a line of a banner.
pub const MARK_BYTES: usize = 1024;
/// Categories of a label, or tags of which a clearance holds values.
pub const CATEGORIES: usize = 32;
/// Values of one category: more than there are countries and their alliances.
pub const CATEGORY_VALUES: usize = 512;
/// Equivalent labels in other policies that a label has.
pub const ALTERNATIVES: usize = 8;
/// Policies under which one holder is cleared.
pub const GRANTS: usize = 32;
/// Bytes of a label or a clearance as text.
pub const TEXT_BYTES: usize = 16_384;
/// Policies that are loaded at once.
pub const POLICIES: usize = 64;
/// Bytes of a policy file. NATO's, with all countries in two languages, has 90,000.
pub const FILE_BYTES: usize = 2 * 1024 * 1024;
/// Classifications of a policy.
pub const CLASSES: usize = 64;
/// Tags of a policy.
pub const TAGS: usize = 64;
/// Values of one tag of a policy.
pub const TAG_VALUES: usize = 1024;
/// Names in one list of a policy file: abbreviations, members, allowed classes, rules.
pub const LIST: usize = 512;
/// Problems of a policy file that are reported at once.
pub const PROBLEMS: usize = 100;
/// Elements within elements in an XML file: the schema's own depth is 7.
pub const XML_DEPTH: usize = 32;
/// Elements of an XML file: NATO's has 1,200.
pub const XML_ELEMENTS: usize = 20_000;
/// Attributes of one XML element: the schema's own most is 10.
pub const XML_ATTRIBUTES: usize = 64;
