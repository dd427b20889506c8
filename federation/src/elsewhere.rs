//! What local users ask of other servers.

use crate::Federation;
use postern_web::Elsewhere;

impl Elsewhere for Federation {}
