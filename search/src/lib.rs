//! Full-text search: an index that follows the log.
