//! What must hold of any bytes at all. The fuzz targets call this, and tests with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{Action, Base, Bundle, Keys, Recorded, RuleSet};
use std::sync::LazyLock;

/// A recorded question is read back as it was written, or refused; it is answered, and the rail holds.
pub fn recorded_question(bytes: &[u8]) {
    static SET: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::build(Base::Open, &[]).unwrap());
    let Ok(recorded) = Recorded::parse(bytes) else { return };
    if let Ok(line) = recorded.to_line() {
        assert_eq!(Recorded::parse(line.as_bytes()).unwrap(), recorded);
    }
    let question = recorded.question;
    let answer = SET.answer(&question);
    assert_eq!(answer, SET.explain(&question).answer);
    let railed = Action::RAILED.contains(&question.action) && !question.context.dominates;
    assert!(!(railed && answer.allowed));
}

/// A bundle is read back as it was written, or refused; nobody's keys verify none.
pub fn policy_bundle(bytes: &[u8]) {
    let Ok(bundle) = Bundle::parse(bytes) else { return };
    let again = Bundle::parse(bundle.to_json().as_bytes()).unwrap();
    assert_eq!(again, bundle);
    assert_eq!(again.signed_form(), bundle.signed_form());
    assert!(bundle.verify(&Keys::default(), None).is_err());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::seeds;

    #[test]
    fn a_recorded_question_is_read_back_or_refused() {
        seeds::near("recorded_question", recorded_question);
    }

    #[test]
    fn a_bundle_is_read_back_or_refused() {
        seeds::near("policy_bundle", policy_bundle);
    }
}
